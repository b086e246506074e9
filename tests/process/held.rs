//! Held devices: `kill -9` at any moment of a pass, and of letting them go.

use std::fs;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::host::{LoopDevice, has_loop_devices};
use crate::lab::{Lab, PAGE, noise};
use crate::site::kill;

/// Pass after pass from three disks in turn; the device is marked all the time, and holds a whole
/// disk whenever it says so.
#[test]
fn passes_onto_a_held_device_may_be_killed_and_so_may_its_release() {
    if !has_loop_devices() {
        return;
    }
    let lab = Lab::new();
    for index in 0..3 {
        let mut disk = noise(PAGES * PAGE, 100);
        for page in (index..PAGES).step_by(3) {
            let own = noise(PAGE, (index * PAGES + page) as u64);
            disk[page * PAGE..(page + 1) * PAGE].copy_from_slice(&own);
        }
        fs::write(lab.path(&name(index)), disk).unwrap();
    }
    fs::write(lab.path("under"), lab.bytes(&name(0))).unwrap();
    let attached = LoopDevice::attach(&lab.path("under"));
    let device = attached.path().to_str().unwrap();
    let pass = |index: usize| {
        let options = "--mode delta --safety in-place --hold --log-dir logs";
        format!("sync {} {device} {options}", name(index))
    };
    let release = format!("recover {device} --release --log-dir logs");
    let started = Instant::now();
    lab.done(&pass(1));
    let usual = started.elapsed().as_micros() as u64;
    let mut dice = Dice::of("held");
    let (mut holds, mut killed) = (1, 0);
    for round in 0..rounds() {
        let next = (holds + 1 + dice.below(2) as usize) % 3;
        let mut interrupt = |words: &str| {
            let child = lab.start(words);
            std::thread::sleep(Duration::from_micros(dice.below(usual * 5 / 4)));
            let done = kill(child);
            killed += u64::from(!done);
            done
        };
        let done = interrupt(&pass(next));
        assert!(is_marked(&attached), "round {round}");
        let (status, said) = lab.json(&format!("recover {device} --log-dir logs"));
        match (status, said["outcome"].as_str()) {
            (0, Some("held")) => {}
            (3, Some("rerun")) if !done => {
                lab.run(&release).fails(3, "did not finish");
                interrupt(&pass(next));
                lab.done(&pass(next));
                holds = next;
            }
            _ => panic!("round {round}: {status} {said}"),
        }
        interrupt(&release);
        if round % 2 == 0 && is_marked(&attached) {
            // Its holder goes on instead.
            lab.done(&pass(next));
            holds = next;
            interrupt(&release);
        }
        lab.done(&release);
        let now = fs::read(device).unwrap();
        match () {
            () if now == lab.bytes(&name(next)) => holds = next,
            () => assert!(
                !done && now == lab.bytes(&name(holds)),
                "round {round}: neither old nor new"
            ),
        }
        assert!(lab.run(&format!("info {device}")).status == 0);
        assert!(fs::read_dir(lab.path("logs")).unwrap().next().is_none());
        lab.done(&pass(holds));
        assert!(is_marked(&attached), "round {round}: held again");
    }
    eprintln!("killed {killed} times");
}

fn is_marked(device: &LoopDevice) -> bool {
    let bytes = fs::read(device.path()).unwrap();
    bytes
        .chunks(512)
        .take(8)
        .any(|sector| sector.starts_with(b"\0diskdelta mark1"))
}

fn name(index: usize) -> String {
    format!("disk-{index}.raw")
}

fn rounds() -> u64 {
    match std::env::var("DISKDELTA_KILL_ROUNDS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) if std::env::var_os("DISKDELTA_LONG").is_some() => 200,
        Err(_) => 8,
    }
}

const PAGES: usize = 1200;
