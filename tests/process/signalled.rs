//! Ctrl-C and SIGTERM at any moment: the status says what became of the target.

use crate::fixture::{Run, ended, send};
use crate::repeated::{Kind, RepeatedTarget, Round, SyncKind, Tally};
use crate::rng::Rng;

/// Interrupts syncs, sometimes twice.
fn signal_rounds(name: &str, kind: Kind, sync_kind: SyncKind) {
    let Some(mut repeated) = RepeatedTarget::new(kind, sync_kind, false) else {
        return;
    };
    let (mut rng, mut tally) = (Rng::of(name), Tally::default());
    for _ in 0..rounds() {
        let (round, mut child) = repeated.start(&mut rng);
        repeated.wait(&mut child, &mut rng);
        let under_marker = repeated.is_marked();
        let signal = if rng.once_in(2) { "INT" } else { "TERM" };
        let twice = rng.once_in(4);
        if child.try_wait().unwrap().is_none() {
            send(&child, signal);
            if twice {
                send(&child, signal);
            }
        }
        let run = ended(child);
        if under_marker && sync_kind == SyncKind::Atomic && !twice {
            assert_eq!(run.status, 0, "under the marker the work goes on: {run:?}");
        }
        check(&repeated, &round, &run);
        repeated.finish(&round, run.status == 0, &mut rng, &mut tally);
    }
    eprintln!("{name}: {tally:?}");
}

/// What the status says is so.
fn check(repeated: &RepeatedTarget, round: &Round, run: &Run) {
    match run.status {
        0 => repeated.expect_new(round),
        2 => {
            assert!(run.stderr.contains("cancelled"), "{run:?}");
            assert!(!repeated.is_marked(), "{run:?}");
            repeated.expect_old(round);
        }
        3 => {
            assert!(repeated.is_marked(), "{run:?}");
            assert!(run.stderr.contains("incomplete"), "{run:?}");
        }
        // The signal came before the command could ask for it.
        -1 => repeated.expect_old(round),
        _ => panic!("{run:?}"),
    }
}

fn rounds() -> u64 {
    match std::env::var("DISKDELTA_KILL_ROUNDS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) if std::env::var_os("DISKDELTA_LONG").is_some() => 100,
        Err(_) => 6,
    }
}

macro_rules! signalled {
    ($($name:ident: $kind:ident, $sync_kind:ident;)*) => {
        $(#[test]
        fn $name() {
            signal_rounds(stringify!($name), Kind::$kind, SyncKind::$sync_kind);
        })*
    };
}

signalled! {
    an_atomic_sync_may_be_interrupted: Raw, Atomic;
    an_in_place_sync_may_be_interrupted: Raw, InPlace;
    a_full_copy_may_be_interrupted: Raw, Full;
    an_atomic_sync_onto_a_dynamic_vhd_may_be_interrupted: Vhd, Atomic;
    an_in_place_sync_onto_a_device_may_be_interrupted: Device, InPlace;
}
