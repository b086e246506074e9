//! qcow2 and VMDK as sources.
#![cfg(feature = "imago")]

use crate::lab::{Lab, oracle};

#[test]
fn a_sync_from_qcow2_and_vmdk_brings_what_the_guest_sees() {
    let lab = Lab::new();
    lab.disk("disk.raw", 700, 1);
    for ext in ["qcow2", "vmdk"] {
        let (raw, image) = (lab.path("disk.raw"), lab.path(&format!("d.{ext}")));
        let (raw, image) = (raw.to_str().unwrap(), image.to_str().unwrap());
        let made = oracle("qemu-img", &["convert", "-f", "raw", "-O", ext, raw, image]);
        if made != Some(true) {
            return;
        }
        let (_, info) = lab.json(&format!("info d.{ext}"));
        assert_eq!(info["format"], ext);
        lab.done(&format!("sync d.{ext} {ext}.raw"));
        assert!(lab.bytes(&format!("{ext}.raw")) == lab.bytes("disk.raw"));
        lab.done(&format!("diff d.{ext} disk.raw"));
        let before = lab.bytes(&format!("d.{ext}"));
        lab.run(&format!("sync disk.raw d.{ext}"))
            .fails(2, "can only be read");
        assert!(lab.bytes(&format!("d.{ext}")) == before);
        lab.run(&format!("sync disk.raw new.{ext}"))
            .fails(2, "can only be read");
        assert!(!lab.path(&format!("new.{ext}")).exists());
    }
}
