//! States thrown by a seed: several operations torn at once, recoveries crashed with garbage of
//! their own.

use diskdelta::storage::fault::CrashState;

use crate::case::Case;
use crate::cases::for_each_case;
use crate::check::Check;
use crate::is_long;

fn sampled_crashes_keep_the_promise(case: &Case) {
    let (disk, mut check) = Check::of(case);
    let seed = std::env::var("DISKDELTA_SEED").map_or(1, |text| text.parse().unwrap());
    let crashes = disk.crashes().with_seed(seed);
    let mut survives = |state: &CrashState| {
        let acknowledged = state.noted("acknowledged");
        check.counts.states += 1;
        check.guarded(state.disk())?;
        check.held(state.disk(), acknowledged)?;
        check.finish(state.disk(), acknowledged)?;
        let nested = state.disk().crashes().with_seed(seed ^ state.number());
        for again in nested.sample(2) {
            check.counts.nested += 1;
            check.finish(again.disk(), acknowledged)?;
            // Three times in a row.
            if let Some(third) = again.disk().crashes().with_seed(seed).sample(1).next() {
                check.counts.nested += 1;
                check.finish(third.disk(), acknowledged)?;
            }
        }
        Ok::<(), String>(())
    };
    for state in crashes.sample(count()) {
        survives(&state).unwrap_or_else(|error| panic!("{}: {error}\n  after {state}", case.name));
    }
    eprintln!("{}: sampled {:?}", case.name, check.counts);
}

fn count() -> usize {
    match is_long() {
        true => 400,
        false if cfg!(debug_assertions) => 6,
        false => 24,
    }
}

for_each_case!(sampled_crashes_keep_the_promise);
