//! The program in `contrib` that controls VMs of libvirt, on a real libvirt.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn virsh(args: &[&str]) -> Option<Output> {
    let mut command = Command::new("virsh");
    command.args(["-q", "-c", "qemu:///system"]).args(args);
    command.output().ok().filter(|it| it.status.success())
}

/// A domain that is removed in the end, whatever became of it.
struct Domain(String);

impl Domain {
    fn define(name: String, disk: &Path) -> Option<Self> {
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>\
             <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>\
             <devices><disk type='file' device='disk'><driver name='qemu' type='raw'/>\
             <source file='{}'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
            disk.display()
        );
        let file = disk.with_extension("xml");
        fs::write(&file, xml).unwrap();
        virsh(&["define", file.to_str().unwrap()]).map(|_| Domain(name))
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        for domain in [&self.0, &format!("{}-failback-test", self.0)] {
            virsh(&["destroy", domain]);
            virsh(&["undefine", domain]);
        }
    }
}

#[test]
fn the_program_for_libvirt_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk.raw");
    fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    let name = format!("diskdelta-trial-{}", std::process::id());
    let domain = virsh(&["list"]).and_then(|_| Domain::define(name.clone(), &disk));
    let Some(_domain) = domain else {
        // A service that runs is not asked of every machine, as a tool that is installed is.
        return eprintln!("LEFT OUT: no libvirt runs here, so that its program is not tried");
    };
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/failback-libvirt");
    let output = Command::new(env!("CARGO_BIN_EXE_diskdelta"))
        .args(["failback", "controller", "test", "--vm", &name, "--disk"])
        .arg(format!("system={}", disk.display()))
        .arg(program)
        .arg(directory.path().join("state"))
        // Its firmware finds no guest that would hear the button.
        .env("FAILBACK_LIBVIRT_SHUTDOWN", "destroy")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.lines().all(|line| line.starts_with("ok  ")), "{text}");
    // Nothing is left of tests and snapshots.
    let left = fs::read_dir(directory.path().join("state")).unwrap();
    let left: Vec<_> = left.map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!disk.with_file_name("disk.raw.failback-snapshot").exists());
}
