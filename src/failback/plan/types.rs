//! What a plan says.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::connect::SiteConnectOptions;
use super::controllers::Controller;
use super::encryption::Encryption;
use super::values::{AllFilled, DiskBytes, Filled, Name, checked};
use crate::failback::machine::{CommitPolicy, JobMode, ProofPolicy, Side, Spec};
use crate::image::Format;
use crate::location::Location;
use crate::named::named;
use crate::sync::Safety;

/// A plan: two sites, and VMs in ordered groups that go from one to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Names the job: letters, digits, `-` and `_`.
    pub name: String,
    /// Where the VMs run now. The job goes to the other site.
    pub active: SiteName,
    /// What is copied when; `None` lets an estimate decide.
    pub mode: Option<JobMode>,
    /// What holds for a target's disk while it is written.
    pub safety: Safety,
    /// When the source is proven.
    pub proof: ProofPolicy,
    /// What happens without a commit, and after how long.
    pub commit: (CommitPolicy, Duration),
    /// Passes are repeated until one fits.
    pub downtime_budget: Duration,
    /// Maximum number of passes while the source runs.
    pub max_passes: u32,
    /// How often a waiting job copies again, if it does.
    pub pass_interval: Option<Duration>,
    /// How often a protected VM is copied again; `None`: once only.
    pub protection_interval: Option<Duration>,
    /// How old a replica may become before `status` warns of it.
    pub max_replica_age: Duration,
    /// An undo file is kept from the first pass on.
    pub keep_undo: bool,
    /// Speed limits hold also while neither side runs.
    pub limit_cutover: bool,
    /// The source's disks are deleted at the commit.
    pub discard_baseline: bool,
    /// The site that VMs come home to.
    pub primary: Site,
    /// The site that they fail over to.
    pub recovery: Site,
    /// A program that hears of what happens to the job.
    pub hook: Option<Vec<String>>,
    /// What is moved, in the order in which it is started.
    pub groups: Vec<Group>,
    /// The text that it was read from.
    pub(super) text: String,
}

named! {
    /// One of the two sites.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum SiteName {
        /// Home.
        Primary = "primary",
        /// Away.
        Recovery = "recovery",
    }
}

named! {
    /// Which way a job goes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Direction {
        /// A failover.
        PrimaryToRecovery = "primary-to-recovery",
        /// A failback.
        RecoveryToPrimary = "recovery-to-primary",
    }
}

/// A site: its host, and how its VMs are controlled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Site {
    /// The host's name, for people and for the operator's programs.
    #[serde(deserialize_with = "checked::<Filled, _, _>")]
    pub host: String,
    /// How its VMs are controlled.
    pub controller: Controller,
    /// Replicas that are written there are kept encrypted.
    pub encryption: Option<Encryption>,
    /// How its disks are reached that lie on other hosts.
    #[serde(default)]
    pub connect: SiteConnectOptions,
}

/// VMs that are started together, once all groups before are running.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Group {
    /// Its name.
    #[serde(deserialize_with = "checked::<Name, _, _>")]
    pub name: String,
    /// Its VMs.
    #[serde(default, rename = "vm")]
    pub vms: Vec<Vm>,
}

/// A VM and its disks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Vm {
    /// Its name, at both sites.
    #[serde(deserialize_with = "checked::<Name, _, _>")]
    pub name: String,
    /// Networks that must be there at the target.
    #[serde(default, deserialize_with = "checked::<AllFilled, _, _>")]
    pub networks: Vec<String>,
    /// It and its disks are made at the target if they are not there.
    #[serde(default)]
    pub create: bool,
    /// Its disks.
    #[serde(default, rename = "disk")]
    pub disks: Vec<Disk>,
}

/// A disk of a VM: what tells it apart, and where it lies at each site.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "DiskFile")]
#[non_exhaustive]
pub struct Disk {
    /// What both sides call it: never its position.
    pub identity: String,
    /// Its length, to be checked.
    pub bytes: Option<u64>,
    /// Where it lies at the primary site.
    pub primary: Location,
    /// Its format there.
    pub primary_format: Format,
    /// Where it lies at the recovery site.
    pub recovery: Location,
    /// Its format there.
    pub recovery_format: Format,
}

/// As a plan has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskFile {
    identity: Filled,
    bytes: Option<DiskBytes>,
    primary: Location,
    primary_format: Option<Format>,
    recovery: Location,
    recovery_format: Option<Format>,
}

impl From<DiskFile> for Disk {
    fn from(file: DiskFile) -> Self {
        Disk {
            identity: file.identity.0,
            bytes: file.bytes.map(Into::into),
            primary_format: file
                .primary_format
                .unwrap_or_else(|| Format::of(&file.primary)),
            primary: file.primary,
            recovery_format: file
                .recovery_format
                .unwrap_or_else(|| Format::of(&file.recovery)),
            recovery: file.recovery,
        }
    }
}

impl Plan {
    /// The text that it was read from, as a job keeps it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Which way the job goes, as the active site says.
    pub fn direction(&self) -> Direction {
        match self.active {
            SiteName::Primary => Direction::PrimaryToRecovery,
            SiteName::Recovery => Direction::RecoveryToPrimary,
        }
    }

    /// Where the VMs run now.
    pub fn source_site(&self) -> &Site {
        self.site(self.active)
    }

    /// Where they are to run.
    pub fn target_site(&self) -> &Site {
        self.site(self.active.other())
    }

    /// A site.
    pub fn site(&self, name: SiteName) -> &Site {
        match name {
            SiteName::Primary => &self.primary,
            SiteName::Recovery => &self.recovery,
        }
    }

    /// Where a disk of this plan lies where its VM runs now.
    pub fn source_of<'a>(&self, disk: &'a Disk) -> &'a Location {
        disk.at(self.active)
    }

    /// Where to connect to have a VM's disks written at a side: all of them lie on one host behind
    /// a shell.
    pub(in crate::failback) fn agent_login(&self, vm: &Vm, side: Side) -> Option<String> {
        let mut logins = vm
            .disks
            .iter()
            .map(|disk| match disk.at(self.site_at(side)) {
                Location::Remote(remote) => remote.login(),
                _ => None,
            });
        let first = logins.next().flatten()?;
        logins
            .all(|login| login.as_deref() == Some(&first))
            .then_some(first)
    }

    /// Whether the source's disks can be replicated to once they are retired.
    fn is_written_back(&self, vm: &Vm) -> bool {
        let mut disks = vm.disks.iter();
        let is_remote = self.agent_login(vm, Side::Source).is_some();
        disks.all(|disk| self.source_of(disk).path().is_some())
            || (is_remote && self.source_site().encryption.is_none())
    }

    /// Which site a side of the job is.
    pub(in crate::failback) fn site_at(&self, side: Side) -> SiteName {
        match side {
            Side::Source => self.active,
            Side::Target => self.active.other(),
        }
    }

    /// All VMs, group by group.
    pub fn vms(&self) -> impl Iterator<Item = &Vm> {
        self.groups.iter().flat_map(|group| &group.vms)
    }

    /// The fixed part of a VM's job; `mode` where the plan leaves it open.
    pub fn spec(&self, vm: &Vm, mode: JobMode) -> Spec {
        let budget = u64::try_from(self.downtime_budget.as_millis()).unwrap_or(u64::MAX);
        Spec::new(self.mode.unwrap_or(mode))
            .with_proof(self.proof)
            .with_commit(self.commit.0)
            .with_create(vm.create)
            .with_keep_undo(self.keep_undo)
            .with_discard_baseline(self.discard_baseline)
            .with_limit_cutover(self.limit_cutover)
            .with_one_way(!self.is_written_back(vm))
            .with_grouped(self.vms().count() > 1)
            .with_max_passes(self.max_passes)
            .with_downtime_budget_ms(budget)
    }
}

/// The path of a disk at a host behind a shell, where it lies there.
pub(in crate::failback) fn path_at(location: &Location, login: &str) -> Option<PathBuf> {
    match location {
        Location::Remote(remote) if remote.login().as_deref() == Some(login) => {
            Some(remote.path().to_owned())
        }
        _ => None,
    }
}

impl Disk {
    /// Its format at a site.
    pub(in crate::failback) fn format_at(&self, site: SiteName) -> Format {
        match site {
            SiteName::Primary => self.primary_format,
            SiteName::Recovery => self.recovery_format,
        }
    }

    /// Where it lies at a site.
    pub fn at(&self, site: SiteName) -> &Location {
        match site {
            SiteName::Primary => &self.primary,
            SiteName::Recovery => &self.recovery,
        }
    }
}

impl SiteName {
    /// Both sites.
    pub(super) const BOTH: [SiteName; 2] = [SiteName::Primary, SiteName::Recovery];

    /// The other one.
    pub fn other(self) -> SiteName {
        match self {
            SiteName::Primary => SiteName::Recovery,
            SiteName::Recovery => SiteName::Primary,
        }
    }
}

impl Direction {
    /// What a job in this direction is called.
    pub fn operation(self) -> &'static str {
        match self {
            Direction::PrimaryToRecovery => "failover",
            Direction::RecoveryToPrimary => "failback",
        }
    }
}
