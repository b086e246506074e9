//! What a job would find and cost, before anything of it is begun.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::begin::refuse_conflicts;
use super::controllers::{as_planned, controllers};
use super::running_vm::spec;
use crate::error::Result;
use crate::failback::disks::crowded;
use crate::failback::disks::one_file::refuse_one_file;
use crate::failback::disks::{Estimate, Forecast, Recommendation, VmDisks};
use crate::failback::machine::{Action, JobMode, Side, Token};
use crate::failback::plan::{Plan, Vm};
use crate::failback::vm::Call;
use crate::progress::{CancelToken, Work};

/// Something that was checked of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// Of which VM.
    pub vm: String,
    /// What was checked.
    pub check: String,
    /// What was found.
    pub found: String,
    /// It holds.
    pub holds: bool,
}

/// What a job would move for one VM.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Preview {
    /// Which VM.
    pub vm: String,
    /// Disk by disk.
    pub disks: Vec<Estimate>,
    /// What is advised.
    pub advice: Recommendation,
    /// What each mode would cost.
    pub forecasts: Vec<Forecast>,
    /// Why `reverse` would be refused after the commit, if it would be.
    pub no_reverse: Option<String>,
}

/// What `discard_baseline` means to an operator.
pub const DELETED_AT_COMMIT: &str = "the commit deletes them, once they are proven equal to what \
     the target was started with; `undo` ends there, and a later `reverse` is a full copy";

/// Checks the prerequisites of a plan and of each of its VMs, one by one, and changes nothing.
/// `state_dir` is where jobs are kept: an earlier one that has the disks must be over.
pub fn check(plan: &Plan, state_dir: &Path) -> Vec<Checked> {
    check_until(plan, state_dir, &CancelToken::new())
}

/// As [`check`]; what waits for a controller ends soon after a cancel, and does not hold then.
pub fn check_until(plan: &Plan, state_dir: &Path, cancel: &CancelToken) -> Vec<Checked> {
    let earlier = refuse_conflicts(state_dir, plan);
    let mut all = vec![Checked {
        vm: "all".to_owned(),
        check: "earlier job".to_owned(),
        holds: earlier.is_ok(),
        found: match earlier {
            Ok(()) => "none that is not over".to_owned(),
            Err(error) => error.to_string(),
        },
    }];
    if let Err(error) = refuse_one_file(plan) {
        all.push(Checked {
            vm: "all".to_owned(),
            check: "one file for each disk".to_owned(),
            holds: false,
            found: error.to_string(),
        });
    }
    if plan.discard_baseline {
        all.push(Checked {
            vm: "all".to_owned(),
            check: "source disks".to_owned(),
            holds: true,
            found: DELETED_AT_COMMIT.to_owned(),
        });
    }
    let mut rooms = Vec::new();
    for vm in plan.vms() {
        check_vms(plan, vm, cancel, &mut all);
        let disks = VmDisks::new(plan, vm, "", [0; 16]);
        let prerequisites = disks.prerequisites();
        rooms.push(
            prerequisites
                .iter()
                .filter_map(|it| it.room.clone())
                .collect::<Vec<_>>(),
        );
        all.extend(prerequisites.into_iter().map(|it| Checked {
            vm: vm.name.clone(),
            check: format!("{} of disk {}", it.check, it.disk),
            found: it.text,
            holds: it.holds,
        }));
    }
    // Those of one VM were summed up with the VM.
    let crowded = match &rooms[..] {
        [_] => Vec::new(),
        rooms => crowded(rooms.iter().flatten()),
    };
    all.extend(crowded.into_iter().map(|found| Checked {
        vm: "all".to_owned(),
        check: "free space".to_owned(),
        found,
        holds: false,
    }));
    all
}

/// Estimates what the job would move, VM by VM. Reads a sample, and changes nothing.
///
/// # Errors
/// Those of [`VmDisks::estimate`].
pub fn estimate(plan: &Plan, work: &Work) -> Result<Vec<Preview>> {
    let previews = plan.vms().map(|vm| {
        let vm_disks = VmDisks::new(plan, vm, "", [0; 16]);
        let disks = vm_disks.estimate(work)?;
        let advice = Recommendation::of(&disks);
        let refused = spec(plan, vm, advice.mode, &vm_disks).refuses_reverse();
        Ok(Preview {
            vm: vm.name.clone(),
            advice,
            no_reverse: refused.map(|refusal| refusal.to_string()),
            forecasts: Forecast::of(&disks, plan.downtime_budget),
            disks,
        })
    });
    previews.collect()
}

/// The mode of each VM: the plan's, or the one that is advised.
///
/// # Errors
/// As [`estimate`].
pub fn modes(plan: &Plan, work: &Work) -> Result<BTreeMap<String, JobMode>> {
    if let Some(mode) = plan.mode {
        return Ok(plan.vms().map(|vm| (vm.name.clone(), mode)).collect());
    }
    let previews = estimate(plan, work)?.into_iter();
    Ok(previews.map(|it| (it.vm, it.advice.mode)).collect())
}

fn check_vms(plan: &Plan, vm: &Vm, cancel: &CancelToken, all: &mut Vec<Checked>) {
    let controllers = controllers(plan, vm, &as_planned);
    // Older than every command of a job: it only looks.
    let call = Call {
        token: Token::default(),
        cancel,
    };
    for side in [Side::Source, Side::Target] {
        let looked = controllers.of(side).execute(&call, Action::Inspect);
        let (found, holds) = match looked {
            Err(error) => (error.to_string(), false),
            Ok(seen) if !seen.exists => {
                ("is not there".to_owned(), side == Side::Target && vm.create)
            }
            Ok(seen) if side == Side::Target => match seen.running {
                true => ("runs; it has to be off".to_owned(), false),
                false => ("is off".to_owned(), true),
            },
            Ok(seen) => match seen.running {
                true => ("runs".to_owned(), true),
                false => ("is off".to_owned(), true),
            },
        };
        all.push(Checked {
            vm: vm.name.clone(),
            check: format!("{side} VM"),
            found,
            holds,
        });
    }
}
