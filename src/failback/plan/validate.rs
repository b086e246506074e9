//! Whether a plan makes sense; every complaint names line and key.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::file::{self, Keys};
use super::places::unfit;
use super::types::{Group, Plan, Site, SiteName};
use super::values::{Argv, Length, ModeName, Name, Passes};
use crate::error::{Error, Result};
use crate::failback::machine::{CommitPolicy, ProofPolicy};
use crate::sync::Safety;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    job: JobFile,
    primary: Site,
    recovery: Site,
    hooks: Option<HooksFile>,
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HooksFile {
    program: Argv,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    name: Name,
    active: SiteName,
    #[serde(default)]
    mode: ModeName,
    #[serde(default)]
    safety: Safety,
    proof: Option<ProofPolicy>,
    commit: Option<CommitPolicy>,
    commit_after: Option<Length>,
    downtime_budget: Option<Length>,
    max_passes: Option<Passes>,
    pass_interval: Option<Length>,
    protection_interval: Option<Length>,
    max_replica_age: Option<Length>,
    #[serde(default)]
    keep_undo: bool,
    #[serde(default)]
    limit_cutover: bool,
    #[serde(default)]
    discard_baseline: bool,
}

impl Plan {
    /// Reads a plan file.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `InvalidInput`, naming line and key, for everything that is wrong in it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", e).at_path(path))?;
        Self::parse(&text).map_err(|e| e.at_path(path))
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// `InvalidInput`, naming line and key, for everything that is wrong in it.
    pub fn parse(text: &str) -> Result<Self> {
        let file: PlanFile = file::read(text)?;
        let job = file.job;
        let check = Check {
            keys: Keys::of(text),
            seen: BTreeMap::new(),
        };
        let pass_interval = job.pass_interval.map(Into::into);
        let protection = job.protection_interval.map(Into::into).or(pass_interval);
        let protection = protection.unwrap_or(PROTECTION_INTERVAL);
        let plan = Plan {
            name: job.name.0,
            active: job.active,
            mode: job.mode.chosen(),
            safety: job.safety,
            proof: job.proof.unwrap_or(ProofPolicy::AfterActivation),
            commit: check.commit(job.commit, job.commit_after)?,
            downtime_budget: job.downtime_budget.map_or(DOWNTIME_BUDGET, |it| it.0),
            max_passes: job.max_passes.map_or(MAX_PASSES, |it| it.0),
            pass_interval,
            protection_interval: (!protection.is_zero()).then_some(protection),
            // One pass may fail.
            max_replica_age: job
                .max_replica_age
                .map_or(protection.saturating_mul(3), |it| it.0),
            keep_undo: job.keep_undo,
            limit_cutover: job.limit_cutover,
            discard_baseline: job.discard_baseline,
            primary: file.primary,
            recovery: file.recovery,
            hook: file.hooks.map(|hooks| hooks.program.0),
            groups: file.group,
            text: text.to_owned(),
        };
        check.all(&plan).map(|()| plan)
    }
}

/// The checks of how values go together.
struct Check<'a> {
    keys: Keys<'a>,
    /// What was named already, by the kind of name, and in which line.
    seen: BTreeMap<(&'static str, String), usize>,
}

impl Check<'_> {
    fn all(mut self, plan: &Plan) -> Result<()> {
        let undo = match () {
            () if !plan.keep_undo => None,
            () if plan.safety == Safety::InPlace => {
                Some("what is written in place has no way back; use `safety = \"atomic\"`")
            }
            () if plan.target_site().encryption.is_some() => {
                Some("an encrypted replica keeps no way back to the disk it began with")
            }
            () => None,
        };
        self.refuse("job.keep_undo", &[], undo)?;
        let unproven = plan.discard_baseline && plan.proof == ProofPolicy::Skip;
        let why = "the source's disks are deleted only after the proof, which the plan skips";
        self.refuse("job.discard_baseline", &[], unproven.then_some(why))?;
        for name in SiteName::BOTH {
            let connect = &plan.site(name).connect;
            let unused = connect.tls_name.is_some() && connect.tls.is_none();
            let why = unused.then_some("goes with `tls_cert`, `tls_key` and `tls_ca`");
            self.refuse(&format!("{name}.connect.tls_name"), &[], why)?;
        }
        for (g, group) in plan.groups.iter().enumerate() {
            self.once("group", ("group.name", &[g]), &group.name)?;
            let is_empty = group.vms.is_empty();
            let why = is_empty.then(|| format!("group `{}` has no VM", group.name));
            self.refuse("group.vm", &[g], why)?;
            for (v, vm) in group.vms.iter().enumerate() {
                self.once("VM", ("group.vm.name", &[g, v]), &vm.name)?;
                let is_empty = vm.disks.is_empty();
                let why = is_empty.then(|| format!("VM `{}` has no disk", vm.name));
                self.refuse("group.vm.disk", &[g, v], why)?;
                for (d, disk) in vm.disks.iter().enumerate() {
                    let items = &[g, v, d];
                    self.once("disk", ("group.vm.disk.identity", items), &disk.identity)?;
                    for name in SiteName::BOTH {
                        let key = format!("group.vm.disk.{name}");
                        self.refuse(&key, items, unfit(plan, vm, disk, name))?;
                        self.once("place", (&key, items), &disk.at(name).place())?;
                    }
                }
            }
        }
        let why = plan.groups.is_empty().then_some("the plan names no VM");
        self.refuse("group", &[], why)
    }

    fn commit(
        &self,
        commit: Option<CommitPolicy>,
        after: Option<Length>,
    ) -> Result<(CommitPolicy, Duration)> {
        let commit = commit.unwrap_or(CommitPolicy::Manual);
        let (key, why) = match (commit, &after) {
            (CommitPolicy::Manual, Some(_)) => (
                "job.commit_after",
                "is only for `commit = \"auto\"` and `commit = \"undo\"`",
            ),
            (CommitPolicy::Auto | CommitPolicy::Undo, None) => {
                ("job.commit", "needs `commit_after`, a length of time")
            }
            _ => return Ok((commit, after.map_or(Duration::ZERO, |it| it.0))),
        };
        Err(self.keys.wrong(key, &[], why))
    }

    fn once(&mut self, kind: &'static str, at: (&str, &[usize]), name: &str) -> Result<()> {
        let line = self.keys.line(at.0, at.1);
        let before = self.seen.insert((kind, name.to_owned()), line);
        let why = before.map(|before| format!("`{name}` is named already in line {before}"));
        self.refuse(at.0, at.1, why)
    }

    fn refuse(&self, key: &str, items: &[usize], why: Option<impl AsRef<str>>) -> Result<()> {
        why.map_or(Ok(()), |why| Err(self.keys.wrong(key, items, why)))
    }
}

const DOWNTIME_BUDGET: Duration = Duration::from_secs(300);
const PROTECTION_INTERVAL: Duration = Duration::from_secs(15 * 60);
const MAX_PASSES: u32 = 8;
