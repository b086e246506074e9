//! `kill -9` at any moment.

use crate::repeated::{Kind, RepeatedTarget, SyncKind, Tally, kill};
use crate::rng::Rng;

/// Kills syncs onto one kind of target; each round goes on from what the last one left.
fn kill_rounds(name: &str, kind: Kind, sync_kind: SyncKind, kept: bool) {
    let Some(mut repeated) = RepeatedTarget::new(kind, sync_kind, kept) else {
        return;
    };
    let (mut rng, mut tally) = (Rng::of(name), Tally::default());
    for _ in 0..rounds() {
        let (round, mut child) = repeated.start(&mut rng);
        repeated.wait(&mut child, &mut rng);
        let done = kill(child);
        repeated.finish(&round, done, &mut rng, &mut tally);
    }
    eprintln!("{name}: {tally:?}");
    if rounds() > 40 {
        let carries_marker = matches!(sync_kind, SyncKind::Atomic | SyncKind::InPlace);
        assert!(
            tally.marked > 0 || !carries_marker,
            "never marked: {tally:?}"
        );
        assert!(
            tally.old > 0 || sync_kind == SyncKind::InPlace,
            "never old: {tally:?}"
        );
        assert!(tally.new > 0, "never new: {tally:?}");
    }
}

fn rounds() -> u64 {
    match std::env::var("DISKDELTA_KILL_ROUNDS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) if std::env::var_os("DISKDELTA_LONG").is_some() => 400,
        Err(_) => 8,
    }
}

macro_rules! killed {
    ($($name:ident: $kind:ident, $sync_kind:ident, $kept:literal;)*) => {
        $(#[test]
        fn $name() {
            kill_rounds(stringify!($name), Kind::$kind, SyncKind::$sync_kind, $kept);
        })*
    };
}

killed! {
    an_atomic_sync_onto_a_file_may_be_killed: Raw, Atomic, false;
    an_atomic_sync_with_a_target_manifest_may_be_killed: Raw, Atomic, true;
    an_in_place_sync_onto_a_file_may_be_killed: Raw, InPlace, false;
    an_in_place_sync_with_a_target_manifest_may_be_killed: Raw, InPlace, true;
    a_full_copy_may_be_killed: Raw, Full, false;
    creating_a_file_may_be_killed: Raw, Create, false;
    an_atomic_sync_onto_a_dynamic_vhd_may_be_killed: Vhd, Atomic, false;
    an_in_place_sync_onto_a_dynamic_vhd_may_be_killed: Vhd, InPlace, false;
    creating_a_dynamic_vhd_may_be_killed: Vhd, Create, false;
    an_atomic_sync_onto_a_device_may_be_killed: Device, Atomic, false;
    an_in_place_sync_onto_a_device_may_be_killed: Device, InPlace, false;
}
