//! The failback machine in a hostile model: whatever happens, and in whatever order, its
//! invariants hold; and where a rule is taken out of it, they are seen to break.
//!
//! Each run looks at the nearest states and at many random walks; `DISKDELTA_LONG=1` makes it every
//! state within wider bounds, and many more walks.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "failback_model/explore.rs"]
mod explore;
#[path = "failback_model/model.rs"]
mod model;
#[path = "failback_model/table.rs"]
mod table;

use std::collections::BTreeSet;

use diskdelta::failback::machine::{
    Checkpoint, CommitPolicy, JobMode, Mutation, ProofPolicy, Spec, Token,
};

use explore::{exhaust, hunt, walk};
use model::Setup;

#[test]
fn a_delta_job_keeps_every_invariant_in_every_order_of_events() {
    explore("delta", with_a_late_command(delta()));
}

#[test]
fn a_full_job_keeps_every_invariant_in_every_order_of_events() {
    explore(
        "full",
        with_a_late_command(Spec::new(JobMode::Full).with_max_passes(1)),
    );
}

#[test]
fn the_choices_of_a_job_keep_every_invariant() {
    let before = ProofPolicy::BeforeActivation;
    explore("undo kept", Setup::new(delta().with_keep_undo(true)));
    explore(
        "proof before activation",
        Setup::new(delta().with_proof(before)),
    );
    explore("grouped", Setup::new(delta().with_grouped(true)));
}

#[test]
fn copies_that_write_wrong_bytes_are_found_before_they_matter() {
    let mut setup = Setup::new(delta());
    setup.corruption = true;
    explore("corruption", setup);
}

#[test]
fn long_random_walks_keep_every_invariant() {
    let unknown = Checkpoint(Token {
        epoch: 0,
        sequence: 9,
    });
    let specs = [
        delta().with_keep_undo(true),
        delta().with_max_passes(3).with_downtime_budget_ms(0),
        delta().with_commit(CommitPolicy::Auto).with_create(true),
        delta().with_commit(CommitPolicy::Undo).with_grouped(true),
        delta()
            .with_proof(ProofPolicy::Skip)
            .with_discard_baseline(true),
        delta().with_base(Some(unknown)),
        Spec::new(JobMode::FullFirst).with_proof(ProofPolicy::BeforeActivation),
        Spec::new(JobMode::Full).with_keep_undo(true),
    ];
    let mut reached = BTreeSet::new();
    for spec in specs {
        for seed in 0..scaled(2_000) {
            match walk(&wild(spec.clone()), seed, 400) {
                Ok(seen) => reached.extend(seen),
                Err(violation) => panic!(
                    "seed {seed} of {spec:?}: {}\n{}",
                    violation.rule, violation.path
                ),
            }
        }
    }
    let mut all: BTreeSet<_> = table::table().into_iter().map(|(phase, _)| phase).collect();
    all.extend(["cancelled", "rolled-back"]);
    let missed: Vec<_> = all.difference(&reached).collect();
    assert!(missed.is_empty(), "nothing is proven about {missed:?}");
}

#[test]
fn a_machine_without_one_of_its_rules_is_caught() {
    let without = |phase, condition| Setup {
        mutation: table::without(Mutation::default(), phase, condition),
        ..wild(undoable())
    };
    let blind = || {
        let unproven = table::without(Mutation::default(), "", "the source is proven equal");
        table::without(unproven, "", "the copy is verified")
    };
    // What was proposed to be right by mistake, and what it must be seen to break.
    caught(
        "no source fence",
        without("", "the source VM is fenced"),
        "I1 I3 G",
    );
    caught(
        "no boot block",
        without("", "the target disk is boot-blocked"),
        "I4 G",
    );
    caught(
        "old tokens accepted",
        Setup {
            no_tokens: true,
            late: 20,
            ..wild(undoable())
        },
        "I1 I2 I3 I4 I8 G T",
    );
    caught(
        "no acknowledgement barrier",
        Setup {
            mutation: Mutation {
                remembers: true,
                ..Mutation::default()
            },
            ..wild(undoable())
        },
        "I1 I3 G",
    );
    caught(
        "no verification, tracking not re-armed on abort",
        Setup {
            mutation: table::without(blind(), "aborting", "change tracking is armed"),
            corruption: false,
            ..wild(undoable())
        },
        "I2 I3 I4 I6",
    );
    caught(
        "no verification, tracking trusted after a crash",
        Setup {
            mutation: blind(),
            lying_tracking: true,
            corruption: false,
            ..wild(undoable())
        },
        "I2 I3 I4 I6",
    );
    caught(
        "commands sent before they are written down",
        Setup {
            write_after_send: true,
            ..wild(undoable())
        },
        "I1 I2 I3 I4 I5 I8 G L1 T",
    );
}

#[test]
fn tracking_that_is_trusted_wrongly_never_costs_the_source() {
    // Nothing but the proof stands between a lying change tracker and the loss of data.
    let lying = || Setup {
        lying_tracking: true,
        corruption: false,
        only: Some("I6"),
        ..wild(undoable())
    };
    holds("lying tracking", lying());
    let mut unproven = lying();
    unproven.mutation = table::without(
        Mutation::default(),
        "commit-pending",
        "the source is proven equal",
    );
    caught("lying tracking, no proof", unproven, "I6");
}

#[test]
fn a_table_without_one_of_its_rows_is_caught() {
    for (phase, condition, rules) in [
        ("prepared", "the target VM is fenced", "G"),
        ("prepared", "the target VM is off", "G"),
        ("prepared", "the target disk is boot-blocked", "G"),
        ("testing", "the test is ended", "T"),
        ("quiescing", "the source VM is fenced", "G"),
        ("quiescing", "the source VM is off", "G"),
        ("final-sync", "the copy is complete", "I3 I4"),
        ("verifying", "the copy is verified", "I3 I4"),
        ("verifying", "the target is decided active", "I7"),
        ("commit-pending", "the target VM runs", "G"),
        ("committing", "the source VM is retired", "I1 I3 I8"),
        (
            "reverse-replicating",
            "the baseline disk is boot-blocked",
            "I4",
        ),
        ("reverse-replicating", "the copy is verified", "I8"),
        ("aborting", "change tracking is armed", "I3 I4"),
        ("aborting", "the source VM is unfenced", "L1"),
        ("rolling-back", "the target VM is fenced", "I1 I2 I3"),
        ("rolling-back", "the target VM is off", "I1 I2 I3"),
        (
            "rolling-back",
            "the target disk is boot-blocked or restored",
            "I8",
        ),
    ] {
        let mut setup = wild(undoable());
        setup.mutation = table::without(Mutation::default(), phase, condition);
        caught(&format!("{phase} without \"{condition}\""), setup, rules);
    }
}

fn delta() -> Spec {
    Spec::new(JobMode::Delta).with_max_passes(1)
}

fn undoable() -> Spec {
    delta().with_keep_undo(true)
}

fn with_a_late_command(spec: Spec) -> Setup {
    Setup {
        late: 1,
        give_up: long(),
        ..Setup::new(spec)
    }
}

/// Everything that can go wrong, does.
fn wild(spec: Spec) -> Setup {
    Setup {
        late: 2,
        blocks: 2,
        give_up: true,
        corruption: true,
        ..Setup::new(spec)
    }
}

fn explore(name: &str, setup: Setup) {
    let limit = match (long(), cfg!(debug_assertions)) {
        (true, _) => 50_000_000,
        (false, true) => 60_000,
        (false, false) => 600_000,
    };
    let explored = exhaust(&setup, limit);
    if let Some(violation) = explored.violation {
        panic!("{name}: {}\n{}", violation.rule, violation.path);
    }
    assert!(explored.complete || !long(), "{name}: too many states");
    println!(
        "{name}: {} states, {} moves",
        explored.states, explored.moves
    );
}

fn holds(name: &str, setup: Setup) {
    let seeds = 0..scaled(10_000);
    if let Some((seed, violation)) = hunt(&setup, seeds.clone(), 400) {
        panic!(
            "{name}, seed {seed}: {}\n{}",
            violation.rule, violation.path
        );
    }
    println!("{name}: {} walks", seeds.end);
}

fn caught(name: &str, setup: Setup, rules: &str) {
    let Some((seed, violation)) = hunt(&setup, 0..100_000, 400) else {
        panic!("{name}: not caught");
    };
    let rule = violation.rule.split(':').next().unwrap();
    println!("{name}: {} (seed {seed})", violation.rule);
    assert!(
        rules.split(' ').any(|expected| expected == rule),
        "{name}: {}\n{}",
        violation.rule,
        violation.path
    );
}

fn scaled(seeds: u64) -> u64 {
    match long() {
        true => seeds * 20,
        false => seeds,
    }
}

fn long() -> bool {
    std::env::var_os("DISKDELTA_LONG").is_some_and(|value| value == "1")
}
