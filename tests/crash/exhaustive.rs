//! Every subset of what was pending, wherever at most seven operations were.

use crate::case::Case;
use crate::cases::for_each_case;
use crate::check::Check;

/// Crashes the work everywhere, and its recovery everywhere.
fn recovery_keeps_the_promise(case: &Case) {
    let (disk, mut check) = Check::of(case);
    let limit = states();
    let crashes = disk.crashes().with_limit(limit).with_samples(limit / 8);
    let coverage = crashes
        .check(|state| check.state(state, 8))
        .unwrap_or_else(|violation| panic!("{}: {violation}", case.name));
    eprintln!("{}: {coverage:?} {:?}", case.name, check.counts);
    assert_eq!(coverage.states, check.counts.states);
}

fn states() -> u64 {
    let default = if cfg!(debug_assertions) { 16 } else { 120 };
    std::env::var("DISKDELTA_CRASH_STATES").map_or(default, |text| text.parse().unwrap())
}

for_each_case!(recovery_keeps_the_promise);
