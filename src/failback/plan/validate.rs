//! Whether a plan makes sense; every complaint names line and key.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;

use super::duration::parse_duration;
use super::file::{
    ControllerFile, DiskFile, GroupFile, JobFile, PlanFile, SiteFile, SizeFile, VmFile, line_of,
};
use super::{Controller, Disk, Group, Plan, Site, SiteName, Vm};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{CommitPolicy, JobMode, ProofPolicy};
use crate::sync::Safety;
use crate::units::parse_size;

/// Checks everything and makes a plan of it.
pub(super) fn plan(file: PlanFile, text: &str) -> Result<Plan> {
    let check = Check {
        text,
        active: file.job.active,
    };
    let JobFile {
        name,
        active,
        mode,
        safety,
        proof,
        commit,
        commit_after,
        downtime_budget,
        max_passes,
        pass_interval,
        keep_undo,
        discard_baseline,
    } = file.job;
    check.way_back(keep_undo.as_ref(), safety.as_ref())?;
    let keep_undo_at = keep_undo.as_ref().map_or(0, |keep| keep.span().start);
    let mut seen = Seen::default();
    let plan = Plan {
        name: check.name("job.name", &name)?,
        active,
        mode: check.choice("job.mode", mode, &MODES)?.flatten(),
        safety: check
            .choice("job.safety", safety, &SAFETIES)?
            .unwrap_or_default(),
        proof: check
            .choice("job.proof", proof, &PROOFS)?
            .unwrap_or(ProofPolicy::AfterActivation),
        commit: check.commit(commit, commit_after)?,
        downtime_budget: check
            .duration("job.downtime_budget", downtime_budget)?
            .unwrap_or(DOWNTIME_BUDGET),
        max_passes: check.passes(max_passes)?,
        pass_interval: check.duration("job.pass_interval", pass_interval)?,
        keep_undo: keep_undo.is_some_and(Spanned::into_inner),
        discard_baseline,
        primary: check.site("primary", file.primary)?,
        recovery: check.site("recovery", file.recovery)?,
        groups: file
            .group
            .into_iter()
            .map(|group| check.group(&mut seen, group))
            .collect::<Result<_>>()?,
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
    /// By what `Address::place` says.
    pub(super) addresses: BTreeMap<String, usize>,
}

impl Check<'_> {
    fn group(&self, seen: &mut Seen, group: Spanned<GroupFile>) -> Result<Group> {
        let at = group.span().start;
        let GroupFile { name, vm } = group.into_inner();
        let name = self.once(
            "group.name",
            &mut seen.groups,
            self.name("group.name", &name)?,
            &name,
        )?;
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
        let name = self.once(
            "group.vm.name",
            &mut seen.vms,
            self.name("group.vm.name", &name)?,
            &name,
        )?;
        if disk.is_empty() {
            return Err(self.wrong("group.vm.disk", at, format!("VM `{name}` has no disk")));
        }
        Ok(Vm {
            name,
            networks: networks
                .iter()
                .map(|network| self.filled("group.vm.networks", network))
                .collect::<Result<_>>()?,
            create,
            disks: disk
                .into_iter()
                .map(|disk| self.disk(seen, disk.into_inner()))
                .collect::<Result<_>>()?,
        })
    }

    fn disk(&self, seen: &mut Seen, disk: DiskFile) -> Result<Disk> {
        const IDENTITY: &str = "group.vm.disk.identity";
        let identity = self.filled(IDENTITY, &disk.identity)?;
        let identity = self.once(IDENTITY, &mut seen.identities, identity, &disk.identity)?;
        let (primary, primary_format) = self.place(
            seen,
            SiteName::Primary,
            ["group.vm.disk.primary", "group.vm.disk.primary_format"],
            &disk.primary,
            disk.primary_format,
        )?;
        let (recovery, recovery_format) = self.place(
            seen,
            SiteName::Recovery,
            ["group.vm.disk.recovery", "group.vm.disk.recovery_format"],
            &disk.recovery,
            disk.recovery_format,
        )?;
        Ok(Disk {
            identity,
            bytes: disk.bytes.map(|bytes| self.size(bytes)).transpose()?,
            primary,
            primary_format,
            recovery,
            recovery_format,
        })
    }

    fn site(&self, site: &'static str, file: SiteFile) -> Result<Site> {
        let key = if site == "primary" {
            "primary.host"
        } else {
            "recovery.host"
        };
        Ok(Site {
            host: self.filled(key, &file.host)?,
            controller: self.controller(site, file.controller)?,
            encryption: file
                .encryption
                .map(|encryption| self.encryption(site, encryption))
                .transpose()?,
            connect: file
                .connect
                .map(|connect| self.connect(site, connect))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    fn controller(&self, site: &str, file: Spanned<ControllerFile>) -> Result<Controller> {
        let at = file.span().start;
        let key = format!("{site}.controller");
        let ControllerFile {
            kind,
            verbs,
            program,
            directory,
            start,
            time_limit,
        } = file.into_inner();
        let time_limit = self.duration(&format!("{key}.time_limit"), time_limit)?;
        let time_limit = time_limit.unwrap_or(TIME_LIMIT);
        #[cfg(feature = "qemu")]
        let of_commands = program.is_some() || !verbs.is_empty();
        let of_qemu = directory.is_some() || start.is_some();
        match &kind[..] {
            "commands" if of_qemu => Err(self.wrong(
                &key,
                at,
                "`directory` and `start` go with `kind = \"qemu\"`",
            )),
            "commands" => self.commands(&key, at, verbs, program, time_limit),
            #[cfg(feature = "qemu")]
            "qemu" if of_commands => Err(self.wrong(
                &key,
                at,
                "`program` and `verbs` go with `kind = \"commands\"`",
            )),
            #[cfg(feature = "qemu")]
            "qemu" => self.qemu(&key, at, directory, start, time_limit),
            _ => {
                let why = format!("`{kind}` is not a controller; there are `commands`, `qemu`");
                Err(self.wrong(&key, at, why))
            }
        }
    }

    fn commit(
        &self,
        commit: Option<Spanned<String>>,
        after: Option<Spanned<String>>,
    ) -> Result<(CommitPolicy, Duration)> {
        let at = commit.as_ref().map_or(0, |commit| commit.span().start);
        let policy = self
            .choice("job.commit", commit, &COMMITS)?
            .unwrap_or(CommitPolicy::Manual);
        let after_at = after.as_ref().map_or(0, |after| after.span().start);
        match (policy, self.duration("job.commit_after", after)?) {
            (CommitPolicy::Manual, None) => Ok((policy, Duration::ZERO)),
            (CommitPolicy::Manual, Some(_)) => {
                let why = "is only for `commit = \"auto\"` and `commit = \"undo\"`";
                Err(self.wrong("job.commit_after", after_at, why))
            }
            (_, Some(after)) => Ok((policy, after)),
            (_, None) => {
                Err(self.wrong("job.commit", at, "needs `commit_after`, a length of time"))
            }
        }
    }

    fn way_back(
        &self,
        keep_undo: Option<&Spanned<bool>>,
        safety: Option<&Spanned<String>>,
    ) -> Result<()> {
        let in_place = safety.is_some_and(|safety| safety.get_ref() == "in-place");
        match keep_undo {
            Some(keep) if *keep.get_ref() && in_place => {
                let why = "what is written in place has no way back; use `safety = \"atomic\"`";
                Err(self.wrong("job.keep_undo", keep.span().start, why))
            }
            _ => Ok(()),
        }
    }

    fn passes(&self, passes: Option<Spanned<u32>>) -> Result<u32> {
        let Some(passes) = passes else {
            return Ok(MAX_PASSES);
        };
        match passes.get_ref() {
            1..=1000 => Ok(*passes.get_ref()),
            _ => Err(self.wrong(
                "job.max_passes",
                passes.span().start,
                "must be from 1 to 1000",
            )),
        }
    }

    fn size(&self, size: Spanned<SizeFile>) -> Result<u64> {
        const KEY: &str = "group.vm.disk.bytes";
        let at = size.span().start;
        let bytes = match size.into_inner() {
            SizeFile::Bytes(bytes) => bytes,
            SizeFile::Text(text) => {
                parse_size(&text).map_err(|e| self.wrong(KEY, at, e.to_string()))?
            }
        };
        match bytes {
            0 => Err(self.wrong(KEY, at, "a disk of no bytes is none")),
            _ => Ok(bytes),
        }
    }

    pub(super) fn duration(
        &self,
        key: &str,
        text: Option<Spanned<String>>,
    ) -> Result<Option<Duration>> {
        let Some(text) = text else {
            return Ok(None);
        };
        let wrong = |e: Error| self.wrong(key, text.span().start, e.to_string());
        parse_duration(text.get_ref()).map(Some).map_err(wrong)
    }

    fn choice<T: Copy>(
        &self,
        key: &str,
        text: Option<Spanned<String>>,
        choices: &[(&str, T)],
    ) -> Result<Option<T>> {
        let Some(text) = text else {
            return Ok(None);
        };
        let found = choices.iter().find(|(name, _)| name == text.get_ref());
        found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let why = format!("`{}` is none of {}", text.get_ref(), names.join(", "));
            self.wrong(key, text.span().start, why)
        })
    }

    /// A name that may become part of a file's name.
    fn name(&self, key: &str, name: &Spanned<String>) -> Result<String> {
        let text = name.get_ref();
        if is_name(text) {
            return Ok(text.clone());
        }
        let why = format!("`{text}` is not a name of 1 to 64 letters, digits, `-`, `_` and `.`");
        Err(self.wrong(key, name.span().start, why))
    }

    pub(super) fn filled(&self, key: &str, text: &Spanned<String>) -> Result<String> {
        let inner = text.get_ref();
        if inner.trim().is_empty() || inner.chars().any(char::is_control) {
            return Err(self.wrong(key, text.span().start, "must not be empty"));
        }
        Ok(inner.clone())
    }

    fn once(
        &self,
        key: &str,
        seen: &mut BTreeMap<String, usize>,
        name: String,
        place: &Spanned<String>,
    ) -> Result<String> {
        let at = place.span().start;
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

/// Whether it is a name that may become part of a file's name.
pub(in crate::failback) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(plain) && !text.starts_with(['.', '-'])
}

const DOWNTIME_BUDGET: Duration = Duration::from_secs(300);
const TIME_LIMIT: Duration = Duration::from_secs(600);
const MAX_PASSES: u32 = 8;

const MODES: [(&str, Option<JobMode>); 4] = [
    ("auto", None),
    ("delta", Some(JobMode::Delta)),
    ("full", Some(JobMode::Full)),
    ("full-first", Some(JobMode::FullFirst)),
];
const SAFETIES: [(&str, Safety); 2] = [("atomic", Safety::Atomic), ("in-place", Safety::InPlace)];
const PROOFS: [(&str, ProofPolicy); 3] = [
    ("after-activation", ProofPolicy::AfterActivation),
    ("before-activation", ProofPolicy::BeforeActivation),
    ("skip", ProofPolicy::Skip),
];
const COMMITS: [(&str, CommitPolicy); 3] = [
    ("manual", CommitPolicy::Manual),
    ("auto", CommitPolicy::Auto),
    ("undo", CommitPolicy::Undo),
];
