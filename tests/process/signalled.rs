//! Ctrl-C and SIGTERM at any moment: the status says what became of the target.

use crate::dice::Dice;
use crate::lab::{Run, ended, send};
use crate::site::{Kind, Round, Site, SyncKind, Tally};

/// Interrupts syncs, sometimes twice.
fn signal_rounds(name: &str, kind: Kind, sync_kind: SyncKind) {
    let Some(mut site) = Site::new(kind, sync_kind, false) else {
        return;
    };
    let (mut dice, mut tally) = (Dice::of(name), Tally::default());
    for _ in 0..rounds() {
        let (round, mut child) = site.start(&mut dice);
        site.wait(&mut child, &mut dice);
        let under_marker = site.is_marked();
        let signal = if dice.once_in(2) { "INT" } else { "TERM" };
        let twice = dice.once_in(4);
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
        check(&site, &round, &run);
        site.finish(&round, run.status == 0, &mut dice, &mut tally);
    }
    eprintln!("{name}: {tally:?}");
}

/// What the status says is so.
fn check(site: &Site, round: &Round, run: &Run) {
    match run.status {
        0 => site.expect_new(round),
        2 => {
            assert!(run.stderr.contains("cancelled"), "{run:?}");
            assert!(!site.is_marked(), "{run:?}");
            site.expect_old(round);
        }
        3 => {
            assert!(site.is_marked(), "{run:?}");
            assert!(run.stderr.contains("incomplete"), "{run:?}");
        }
        // The signal came before the command could ask for it.
        -1 => site.expect_old(round),
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
