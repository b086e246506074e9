//! What a job would find and cost, before anything of it is begun.

use serde::Serialize;

use super::carry::controllers;
use crate::control::{CancelToken, Work};
use crate::error::Result;
use crate::failback::controller::Call;
use crate::failback::disks::{Estimate, HostDisks, Recommendation};
use crate::failback::machine::{Side, Token};
use crate::failback::plan::{Plan, Vm};

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
pub struct Prospect {
    /// Which VM.
    pub vm: String,
    /// Disk by disk.
    pub disks: Vec<Estimate>,
    /// What is advised.
    pub advice: Recommendation,
}

/// Checks the prerequisites of every VM of a plan, one by one, and changes nothing.
pub fn check(plan: &Plan) -> Vec<Checked> {
    let mut all = Vec::new();
    for vm in plan.vms() {
        check_vms(plan, vm, &mut all);
        let disks = HostDisks::new(plan, vm, "");
        all.extend(
            disks
                .prerequisites(Side::Target)
                .into_iter()
                .map(|it| Checked {
                    vm: vm.name.clone(),
                    check: format!("{} of disk {}", it.check, it.disk),
                    found: it.text,
                    holds: it.holds,
                }),
        );
    }
    all
}

/// Estimates what the job would move, VM by VM. Reads a sample, and changes nothing.
///
/// # Errors
/// Those of [`HostDisks::estimate`].
pub fn estimate(plan: &Plan, work: &Work) -> Result<Vec<Prospect>> {
    let prospects = plan.vms().map(|vm| {
        let disks = HostDisks::new(plan, vm, "").estimate(work)?;
        Ok(Prospect {
            vm: vm.name.clone(),
            advice: Recommendation::of(&disks),
            disks,
        })
    });
    prospects.collect()
}

fn check_vms(plan: &Plan, vm: &Vm, all: &mut Vec<Checked>) {
    let controllers = controllers(plan, vm);
    let cancel = CancelToken::new();
    // Older than every command of a job: it only looks.
    let call = Call {
        token: Token::default(),
        cancel: &cancel,
    };
    for side in [Side::Source, Side::Target] {
        let looked = controllers.of(side).inspect(&call);
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
