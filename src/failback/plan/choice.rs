//! Some of a plan's VMs.

use toml::{Table, Value};

use super::types::Plan;
use crate::error::{Error, ErrorKind, Result};

impl Plan {
    /// The plan of only these VMs; in `job`, where that is given, instead of its own one. Groups
    /// without a VM are left out.
    ///
    /// # Errors
    /// `InvalidInput` for a VM that the plan does not have, naming those that it has.
    pub fn choose(&self, vms: &[String], job: Option<&str>) -> Result<Self> {
        if let Some(unknown) = vms.iter().find(|vm| self.vms().all(|it| it.name != **vm)) {
            let known: Vec<_> = self.vms().map(|vm| &vm.name[..]).collect();
            let text = format!(
                "the plan has no VM `{unknown}`; it has {}",
                known.join(", ")
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if vms.is_empty() && job.is_none() {
            return Ok(self.clone());
        }
        let mut plan: Table = toml::from_str(&self.text).map_err(unreadable)?;
        if let (Some(name), Some(Value::Table(table))) = (job, plan.get_mut("job")) {
            table.insert("name".to_owned(), name.into());
        }
        if let (false, Some(Value::Array(groups))) = (vms.is_empty(), plan.get_mut("group")) {
            groups.retain_mut(|group| match group.get_mut("vm") {
                Some(Value::Array(of_group)) => {
                    let chosen = |vm: &Value| vms.iter().any(|it| Some(&it[..]) == name(vm));
                    of_group.retain(chosen);
                    !of_group.is_empty()
                }
                _ => false,
            });
        }
        Self::parse(&toml::to_string(&plan).map_err(unreadable)?)
    }
}

fn name(vm: &Value) -> Option<&str> {
    vm.get("name")?.as_str()
}

fn unreadable(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::InvalidInput, "cannot choose VMs of the plan").caused_by(cause)
}
