//! Whether a plan makes sense; every complaint names line and key.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use super::connect::{SiteConnectOptions, TlsFiles};
use super::file::{self, ConnectFile, DiskFile, GroupFile, PlanFile, SiteFile, VmFile, line_of};
use super::types::{Disk, Group, Plan, Site, SiteName, Vm};
use super::values::Length;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{CommitPolicy, ProofPolicy};
use crate::sync::Safety;

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
        plan(file::read(text)?, text)
    }
}

/// Checks everything and makes a plan of it.
fn plan(file: PlanFile, text: &str) -> Result<Plan> {
    let PlanFile {
        job,
        primary,
        recovery,
        hooks,
        group,
    } = file;
    let check = Check {
        text,
        active: job.active,
    };
    let keep_undo_at = job.keep_undo.as_ref().map_or(0, |keep| keep.span().start);
    let keep_undo = job.keep_undo.is_some_and(Spanned::into_inner);
    if keep_undo && job.safety == Safety::InPlace {
        let why = "what is written in place has no way back; use `safety = \"atomic\"`";
        return Err(check.wrong("job.keep_undo", keep_undo_at, why));
    }
    let discard_at = job.discard_baseline.as_ref();
    let discard_at = discard_at.map_or(0, |discard| discard.span().start);
    let discard_baseline = job.discard_baseline.is_some_and(Spanned::into_inner);
    if discard_baseline && job.proof == Some(ProofPolicy::Skip) {
        let why = "the source's disks are deleted only after the proof, which the plan skips";
        return Err(check.wrong("job.discard_baseline", discard_at, why));
    }
    let pass_interval = job.pass_interval.map(|it| it.0);
    let protection = job.protection_interval.map(|it| it.0);
    let protection = protection.or(pass_interval).unwrap_or(PROTECTION_INTERVAL);
    let mut seen = Seen::default();
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
        max_replica_age: match job.max_replica_age {
            Some(age) => age.0,
            // One pass may fail.
            None => protection.saturating_mul(3),
        },
        keep_undo,
        limit_cutover: job.limit_cutover,
        discard_baseline,
        primary: check.site("primary", primary)?,
        recovery: check.site("recovery", recovery)?,
        hook: check.hook(hooks)?,
        groups: group
            .into_iter()
            .map(|group| check.group(&mut seen, group))
            .collect::<Result<_>>()?,
        text: text.to_owned(),
    };
    check.places(&plan, &seen)?;
    if plan.keep_undo && plan.target_site().encryption.is_some() {
        let why = "an encrypted replica keeps no way back to the disk it began with";
        return Err(check.wrong("job.keep_undo", keep_undo_at, why));
    }
    if plan.vms().next().is_none() {
        return Err(check.wrong("group", 0, "the plan names no VM"));
    }
    Ok(plan)
}

pub(super) struct Check<'a> {
    pub(super) text: &'a str,
    pub(super) active: SiteName,
}

/// What was named already, and where.
#[derive(Default)]
pub(super) struct Seen {
    groups: BTreeMap<String, usize>,
    vms: BTreeMap<String, usize>,
    identities: BTreeMap<String, usize>,
    /// By what `Location::place` says.
    pub(super) addresses: BTreeMap<String, usize>,
}

impl Check<'_> {
    fn group(&self, seen: &mut Seen, group: Spanned<GroupFile>) -> Result<Group> {
        let at = group.span().start;
        let GroupFile { name, vm } = group.into_inner();
        let at_name = name.span().start;
        let name = self.once("group.name", &mut seen.groups, name.into_inner().0, at_name)?;
        if vm.is_empty() {
            return Err(self.wrong("group.vm", at, format!("group `{name}` has no VM")));
        }
        let vms = vm
            .into_iter()
            .map(|vm| self.vm(seen, vm))
            .collect::<Result<_>>()?;
        Ok(Group { name, vms })
    }

    fn vm(&self, seen: &mut Seen, vm: Spanned<VmFile>) -> Result<Vm> {
        let at = vm.span().start;
        let VmFile {
            name,
            networks,
            create,
            disk,
        } = vm.into_inner();
        let at_name = name.span().start;
        let name = self.once("group.vm.name", &mut seen.vms, name.into_inner().0, at_name)?;
        if disk.is_empty() {
            return Err(self.wrong("group.vm.disk", at, format!("VM `{name}` has no disk")));
        }
        Ok(Vm {
            name,
            networks: networks.into_iter().map(|it| it.0).collect(),
            create,
            disks: disk
                .into_iter()
                .map(|disk| self.disk(seen, disk))
                .collect::<Result<_>>()?,
        })
    }

    fn disk(&self, seen: &mut Seen, disk: DiskFile) -> Result<Disk> {
        const IDENTITY: &str = "group.vm.disk.identity";
        let at = disk.identity.span().start;
        let identity = disk.identity.into_inner().0;
        let identity = self.once(IDENTITY, &mut seen.identities, identity, at)?;
        let primary = (SiteName::Primary, "group.vm.disk.primary");
        let recovery = (SiteName::Recovery, "group.vm.disk.recovery");
        let primary = self.place(seen, primary, disk.primary, disk.primary_format)?;
        let recovery = self.place(seen, recovery, disk.recovery, disk.recovery_format)?;
        Ok(Disk {
            identity,
            bytes: disk.bytes.map(|bytes| bytes.0),
            primary: primary.0,
            primary_format: primary.1,
            recovery: recovery.0,
            recovery_format: recovery.1,
        })
    }

    fn site(&self, site: &'static str, file: SiteFile) -> Result<Site> {
        let encryption = file.encryption.map(|it| self.encryption(site, it));
        let connect = file.connect.map(|it| self.connect(site, it));
        Ok(Site {
            host: file.host.0,
            controller: self.controller(site, file.controller)?,
            encryption: encryption.transpose()?,
            connect: connect.transpose()?.unwrap_or_default(),
        })
    }

    fn connect(&self, site: &str, file: Spanned<ConnectFile>) -> Result<SiteConnectOptions> {
        let at = file.span().start;
        let table = format!("{site}.connect");
        let file = file.into_inner();
        let default = SiteConnectOptions::default();
        let tls = match (file.tls_cert, file.tls_key, file.tls_ca) {
            (None, None, None) => None,
            (Some(cert), Some(key), Some(ca)) => Some(TlsFiles {
                cert: cert.0,
                key: key.0,
                ca: ca.0,
            }),
            _ => {
                let why = "`tls_cert`, `tls_key` and `tls_ca` go together";
                return Err(self.wrong(&table, at, why));
            }
        };
        if let (Some(name), None) = (&file.tls_name, &tls) {
            let why = "goes with `tls_cert`, `tls_key` and `tls_ca`";
            return Err(self.wrong(&format!("{table}.tls_name"), name.span().start, why));
        }
        Ok(SiteConnectOptions {
            rsh: file.rsh.map_or(default.rsh, |it| it.0),
            remote_program: file
                .remote_program
                .map_or(default.remote_program, |it| it.0),
            tls,
            tls_name: file.tls_name.map(|it| it.into_inner().0),
            timeout: file.timeout.map_or(default.timeout, |it| it.0),
            state: file.state.map(|it| it.0),
            limit_rate: file.limit_rate.map_or(0, |it| it.0),
        })
    }

    fn commit(
        &self,
        commit: Option<Spanned<CommitPolicy>>,
        after: Option<Spanned<Length>>,
    ) -> Result<(CommitPolicy, Duration)> {
        let at = commit.as_ref().map_or(0, |commit| commit.span().start);
        match (commit.map(Spanned::into_inner), after) {
            (None | Some(CommitPolicy::Manual), None) => Ok((CommitPolicy::Manual, Duration::ZERO)),
            (None | Some(CommitPolicy::Manual), Some(after)) => {
                let why = "is only for `commit = \"auto\"` and `commit = \"undo\"`";
                Err(self.wrong("job.commit_after", after.span().start, why))
            }
            (Some(policy), Some(after)) => Ok((policy, after.into_inner().0)),
            (Some(_), None) => {
                Err(self.wrong("job.commit", at, "needs `commit_after`, a length of time"))
            }
        }
    }

    fn once(
        &self,
        key: &str,
        seen: &mut BTreeMap<String, usize>,
        name: String,
        at: usize,
    ) -> Result<String> {
        match seen.insert(name.clone(), line_of(self.text, at)) {
            None => Ok(name),
            Some(before) => {
                let why = format!("`{name}` is named already in line {before}");
                Err(self.wrong(key, at, why))
            }
        }
    }

    pub(super) fn wrong(&self, key: &str, at: usize, why: impl AsRef<str>) -> Error {
        let line = line_of(self.text, at);
        let text = format!("line {line}, key `{key}`: {}", why.as_ref());
        Error::new(ErrorKind::InvalidInput, text)
    }
}

const DOWNTIME_BUDGET: Duration = Duration::from_secs(300);
const PROTECTION_INTERVAL: Duration = Duration::from_secs(15 * 60);
const MAX_PASSES: u32 = 8;
