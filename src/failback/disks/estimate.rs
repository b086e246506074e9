//! What a job would move for each disk, and the mode that follows from that.

use serde::{Deserialize, Serialize};

use crate::failback::machine::JobMode;
use crate::sync::FULL_FROM_PERCENT_VERIFIED;

/// What a job would move for one disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Estimate {
    /// Which disk.
    pub disk: String,
    /// Length of the source's disk.
    pub disk_bytes: u64,
    /// Bytes that the source holds: what a full copy moves.
    pub data_bytes: u64,
    /// Bytes that a delta would move, as a sample says; `None` where the target is missing.
    pub changed_bytes: Option<u64>,
    /// How long reading all of the source takes at the speed of the sample.
    pub read_seconds: f64,
    /// How long bringing all of that over the line takes, at the speed at which the sample came; 0
    /// where the source is read on this host.
    pub line_seconds: f64,
    /// How long writing as much takes at the target, durably, at the speed of a small file there.
    pub write_seconds: f64,
    /// How long reading it back from the medium takes, at the same speed.
    pub back_seconds: f64,
    /// Bytes that the source's VM changed a second, on the average since the target was last
    /// written; `None` where that is not known.
    pub written_per_second: Option<f64>,
}

/// The mode that costs least, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recommendation {
    /// The mode.
    pub mode: JobMode,
    /// Why.
    pub reason: String,
}

impl Recommendation {
    /// Chooses from the estimates of all disks of a VM.
    pub fn of(estimates: &[Estimate]) -> Self {
        let data: u64 = estimates.iter().map(|disk| disk.data_bytes).sum();
        let missing = estimates.iter().any(|disk| disk.changed_bytes.is_none());
        let changed: u64 = estimates.iter().filter_map(|disk| disk.changed_bytes).sum();
        let percent = changed.saturating_mul(100).checked_div(data).unwrap_or(0);
        if missing {
            return Recommendation {
                mode: JobMode::FullFirst,
                reason: "a target disk is missing or incomplete, so everything moves; while the \
                         source runs"
                    .to_owned(),
            };
        }
        let (mode, so) = match percent {
            0..FULL_FROM_PERCENT_VERIFIED => (JobMode::Delta, "a delta moves least"),
            _ => (
                JobMode::FullFirst,
                "a full copy is less work than comparing",
            ),
        };
        Recommendation {
            mode,
            reason: format!("about {percent} % of what was sampled differs: {so}"),
        }
    }
}
