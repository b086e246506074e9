//! What a job would cost in each mode, from the estimates of its disks.

use std::time::Duration;

use super::estimate::Estimate;
use crate::failback::machine::JobMode;

/// What a mode would move, and for how long the VM would be off.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Forecast {
    /// The mode.
    pub mode: JobMode,
    /// Bytes that its first copy moves.
    pub moved_bytes: u64,
    /// From the source's shutdown to the target's start, without the time that the VM itself
    /// needs for them; `None` where it is not known how fast the VM writes.
    pub downtime_seconds: Option<f64>,
}

impl Forecast {
    /// One for each mode. Reading, sending and writing are taken to be as fast as they were seen to
    /// be, and the VM to go on writing as it did since the target was last written; passes are
    /// repeated until one fits `budget` or they get no shorter.
    pub fn of(estimates: &[Estimate], budget: Duration) -> Vec<Self> {
        let data: u64 = estimates.iter().map(|disk| disk.data_bytes).sum();
        let known = estimates.iter().map(|disk| disk.changed_bytes);
        let changed: u64 = known.map(|bytes| bytes.unwrap_or_default()).sum();
        let missing = estimates.iter().any(|disk| disk.changed_bytes.is_none());
        let all = |of: &dyn Fn(&Estimate) -> f64| estimates.iter().map(of).sum::<f64>();
        let read = all(&|disk| disk.read_seconds);
        let line = all(&|disk| disk.line_seconds);
        let write = all(&|disk| disk.write_seconds + disk.back_seconds);
        let rates = estimates.iter().map(|disk| disk.written_per_second);
        let rate = rates.sum::<Option<f64>>();
        // Each byte is read once, sent once, written once, and read back.
        let whole = read + line + write;
        let byte = |seconds: f64| seconds / data.max(1) as f64;
        let last =
            |first_pass: f64| rate.map(|rate| shortest(first_pass, rate * byte(whole), budget));
        let delta = read * 2.0 + changed as f64 * byte(line + write);
        let forecast = |mode, moved_bytes, copied_seconds: Option<f64>| Forecast {
            mode,
            moved_bytes,
            downtime_seconds: copied_seconds.map(|seconds| seconds + STEPS_SECONDS),
        };
        let mut all = vec![
            forecast(JobMode::Full, data, Some(whole)),
            forecast(JobMode::FullFirst, data, last(whole)),
        ];
        if !missing {
            all.insert(0, forecast(JobMode::Delta, changed, last(delta)));
        }
        all
    }
}

/// What the steps around the last copy take: controllers, the sync of an empty pass, renames.
const STEPS_SECONDS: f64 = 0.4;

/// How long the last copy takes, where the first one took `pass` seconds, and each second the VM
/// writes what takes `seconds_a_second` to copy.
fn shortest(mut pass: f64, seconds_a_second: f64, budget: Duration) -> f64 {
    loop {
        // What is written during a pass is read, sent, written and read back by the next.
        let next = pass * seconds_a_second;
        if next <= budget.as_secs_f64() || next > pass * 0.9 {
            return next;
        }
        pass = next;
    }
}
