//! Plans that a program puts together.

use std::time::Duration;

use serde::Serialize;
use toml::{Table, Value};

use super::types::{Plan, SiteName};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{CommitPolicy, JobMode, ProofPolicy};
use crate::sync::Safety;

/// A plan that a program puts together, for VMs that it controls itself.
///
/// # Examples
/// ```
/// use diskdelta::failback::plan::{Plan, SiteName};
///
/// let plan = Plan::builder("shop", SiteName::Recovery)
///     .hosts("hv1.example", "cloud.example")
///     .group("databases")
///     .vm("db1")
///     .disk("db1-system", "/vm/db1.vhdx", "/mnt/cloud/db1.raw")
///     .build()?;
/// assert_eq!(plan.vms().count(), 1);
/// # Ok::<(), diskdelta::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is checked before `build`"]
pub struct PlanBuilder {
    job: Table,
    hosts: [String; 2],
    groups: Vec<Table>,
}

impl Plan {
    /// Begins the plan of the job `name`, whose VMs run at the site `active` now.
    pub fn builder(name: &str, active: SiteName) -> PlanBuilder {
        let builder = PlanBuilder {
            job: Table::new(),
            hosts: ["primary".to_owned(), "recovery".to_owned()],
            groups: Vec::new(),
        };
        builder.with("name", name).with("active", active.name())
    }
}

impl PlanBuilder {
    /// The hosts of the primary and of the recovery site, for people.
    pub fn hosts(mut self, primary: &str, recovery: &str) -> Self {
        self.hosts = [primary.to_owned(), recovery.to_owned()];
        self
    }

    /// What is copied when [what an estimate says].
    pub fn mode(self, mode: JobMode) -> Self {
        self.with("mode", mode)
    }

    /// What holds for a target's disk while it is written [`Safety::Atomic`].
    pub fn safety(self, safety: Safety) -> Self {
        let safety = match safety {
            Safety::Atomic => "atomic",
            Safety::InPlace => "in-place",
        };
        self.with("safety", safety)
    }

    /// When the source is proven to equal the target [`ProofPolicy::AfterActivation`].
    pub fn proof(self, proof: ProofPolicy) -> Self {
        self.with("proof", proof)
    }

    /// What happens when no commit comes for so long [`CommitPolicy::Manual`].
    pub fn commit(self, commit: CommitPolicy, after: Duration) -> Self {
        self.with("commit", commit)
            .with("commit_after", secs(after))
    }

    /// Passes are repeated until one takes at most so long [5 minutes].
    pub fn downtime_budget(self, budget: Duration) -> Self {
        self.with("downtime_budget", secs(budget))
    }

    /// How often a waiting or protected job copies again [never].
    pub fn pass_interval(self, interval: Duration) -> Self {
        self.with("pass_interval", secs(interval))
    }

    /// Keeps the way back of the target's disks [false].
    pub fn keep_undo(self, keep: bool) -> Self {
        self.with("keep_undo", keep)
    }

    /// Begins a group, whose VMs start once all groups before are running.
    pub fn group(mut self, name: &str) -> Self {
        self.groups.push(named(name));
        self
    }

    /// Adds a VM to the last group.
    pub fn vm(mut self, name: &str) -> Self {
        if self.groups.is_empty() {
            self = self.group("all");
        }
        push(self.groups.last_mut(), "vm", named(name));
        self
    }

    /// Adds a disk to the last VM: what tells it apart, and where it lies at each site, as
    /// [`Location::parse_absolute`](crate::Location::parse_absolute) reads it.
    pub fn disk(mut self, identity: &str, primary: &str, recovery: &str) -> Self {
        let texts = [
            ("identity", identity),
            ("primary", primary),
            ("recovery", recovery),
        ];
        let disk = Table::from_iter(texts.map(|(key, text)| (key.to_owned(), text.into())));
        let vms = self.groups.last_mut().and_then(|group| group.get_mut("vm"));
        let vm = vms.and_then(|vms| vms.as_array_mut()?.last_mut()?.as_table_mut());
        push(vm, "disk", disk);
        self
    }

    /// Checks the plan.
    ///
    /// # Errors
    /// As [`Plan::parse`].
    pub fn build(&self) -> Result<Plan> {
        let site = |host: &String| {
            let mut site = Table::new();
            site.insert("host".to_owned(), host.clone().into());
            let own = Table::from_iter([("kind".to_owned(), "own".into())]);
            site.insert("controller".to_owned(), own.into());
            Value::Table(site)
        };
        let plan = Table::from_iter([
            ("job".to_owned(), self.job.clone().into()),
            ("primary".to_owned(), site(&self.hosts[0])),
            ("recovery".to_owned(), site(&self.hosts[1])),
            ("group".to_owned(), self.groups.clone().into()),
        ]);
        let text = toml::to_string(&plan).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "cannot say the plan as TOML").caused_by(e)
        })?;
        Plan::parse(&text)
    }

    fn with(mut self, key: &str, value: impl Serialize) -> Self {
        // All that is set here is a name, a number or a length of time.
        if let Ok(value) = Value::try_from(value) {
            self.job.insert(key.to_owned(), value);
        }
        self
    }
}

fn named(name: &str) -> Table {
    Table::from_iter([("name".to_owned(), name.into())])
}

fn push(table: Option<&mut Table>, key: &str, item: Table) {
    let Some(table) = table else { return };
    let list = table.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut() {
        list.push(item.into());
    }
}

/// Whole seconds, rounded up.
fn secs(length: Duration) -> String {
    format!("{}s", length.as_millis().div_ceil(1000))
}
