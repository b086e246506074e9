//! What a job would cost in each mode.

use std::time::Duration;

use diskdelta::failback::disks::{Estimate, Forecast};
use diskdelta::failback::machine::JobMode;
use serde_json::json;

fn estimate(changed: Option<u64>, rate: Option<f64>) -> Estimate {
    let estimate = json!({
        "disk": "a", "disk_bytes": 4000, "data_bytes": 1000, "changed_bytes": changed,
        "read_seconds": 10.0, "line_seconds": 0.0, "write_seconds": 10.0, "back_seconds": 10.0,
        "written_per_second": rate,
    });
    serde_json::from_value(estimate).unwrap()
}

fn downtimes(estimates: &[Estimate], budget: u64) -> Vec<(JobMode, u64, Option<u64>)> {
    let forecasts = Forecast::of(estimates, Duration::from_secs(budget));
    forecasts
        .iter()
        .map(|it| {
            (
                it.mode,
                it.moved_bytes,
                it.downtime_seconds.map(|s| s.round() as u64),
            )
        })
        .collect()
}

#[test]
fn a_full_copy_keeps_the_vm_off_for_all_of_it_and_a_delta_for_what_is_written_meanwhile() {
    // 100 bytes a second; a delta's first pass takes 22 s, in which 220 bytes are written.
    let found = downtimes(&[estimate(Some(100), Some(10.0))], 300);
    assert_eq!(
        found,
        [
            (JobMode::Delta, 100, Some(7)),
            (JobMode::Full, 1000, Some(30)),
            (JobMode::FullFirst, 1000, Some(9)),
        ]
    );
}

#[test]
fn passes_are_repeated_down_to_the_budget_and_no_further_than_they_get_shorter() {
    let slow = [estimate(Some(100), Some(10.0))];
    assert_eq!(downtimes(&slow, 2)[0].2, Some(2), "22, 7, 2 seconds");
    let busy = [estimate(Some(100), Some(50.0))];
    assert_eq!(
        downtimes(&busy, 2)[0].2,
        Some(33),
        "more is written than copied"
    );
}

#[test]
fn a_medium_that_is_slow_to_write_is_slow_in_every_copy() {
    let mut slow = estimate(Some(100), Some(1.0));
    slow.write_seconds = 100.0;
    let found = downtimes(&[slow], 300);
    // A first pass of 31 s, and one of 120 s; 0.12 s for each second of them, 0.4 s for the steps.
    assert_eq!(
        found,
        [
            (JobMode::Delta, 100, Some(4)),
            (JobMode::Full, 1000, Some(120)),
            (JobMode::FullFirst, 1000, Some(15)),
        ]
    );
}

#[test]
fn what_is_not_known_is_not_made_up() {
    let found = downtimes(&[estimate(None, None), estimate(Some(5), Some(1.0))], 300);
    assert_eq!(
        found,
        [
            (JobMode::Full, 2000, Some(60)),
            (JobMode::FullFirst, 2000, None)
        ]
    );
}
