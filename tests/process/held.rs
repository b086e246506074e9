//! Held devices: `kill -9` at any moment of a pass, and of letting them go.

use std::fs;
use std::time::{Duration, Instant};

use crate::fixture::{Fixture, PAGE, noise};
use crate::host::{LoopDevice, has_loop_devices};
use crate::repeated::kill;
use crate::rng::Rng;

/// Pass after pass from three disks in turn; the device is marked all the time, and holds a whole
/// disk whenever it says so.
#[test]
fn passes_onto_a_held_device_may_be_killed_and_so_may_its_release() {
    if !has_loop_devices() {
        return;
    }
    let fixture = Fixture::new();
    for index in 0..3 {
        let mut disk = noise(PAGES * PAGE, 100);
        for page in (index..PAGES).step_by(3) {
            let own = noise(PAGE, (index * PAGES + page) as u64);
            disk[page * PAGE..(page + 1) * PAGE].copy_from_slice(&own);
        }
        fs::write(fixture.path(&name(index)), disk).unwrap();
    }
    fs::write(fixture.path("under"), fixture.bytes(&name(0))).unwrap();
    let attached = LoopDevice::attach(&fixture.path("under"));
    let device = attached.path().to_str().unwrap();
    let pass = |index: usize| {
        let options = "--mode delta --safety in-place --hold --log-dir logs";
        format!("sync {} {device} {options}", name(index))
    };
    let release = format!("recover {device} --release --log-dir logs");
    let started = Instant::now();
    fixture.done(&pass(1));
    let usual = started.elapsed().as_micros() as u64;
    let mut rng = Rng::of("held");
    let (mut holds, mut killed) = (1, 0);
    for round in 0..rounds() {
        let next = (holds + 1 + rng.below(2) as usize) % 3;
        let mut interrupt = |words: &str| {
            let child = fixture.start(words);
            std::thread::sleep(Duration::from_micros(rng.below(usual * 5 / 4)));
            let done = kill(child);
            killed += u64::from(!done);
            done
        };
        let done = interrupt(&pass(next));
        assert!(is_marked(&attached), "round {round}");
        let (status, said) = fixture.json(&format!("recover {device} --log-dir logs"));
        match (status, said["outcome"].as_str()) {
            (0, Some("held")) => {}
            (3, Some("rerun")) if !done => {
                fixture.run(&release).fails(3, "did not finish");
                interrupt(&pass(next));
                fixture.done(&pass(next));
                holds = next;
            }
            _ => panic!("round {round}: {status} {said}"),
        }
        interrupt(&release);
        if round % 2 == 0 && is_marked(&attached) {
            // Its holder goes on instead.
            fixture.done(&pass(next));
            holds = next;
            interrupt(&release);
        }
        fixture.done(&release);
        let now = fs::read(device).unwrap();
        match () {
            () if now == fixture.bytes(&name(next)) => holds = next,
            () => assert!(
                !done && now == fixture.bytes(&name(holds)),
                "round {round}: neither old nor new"
            ),
        }
        assert!(fixture.run(&format!("info {device}")).status == 0);
        assert!(fs::read_dir(fixture.path("logs")).unwrap().next().is_none());
        fixture.done(&pass(holds));
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
