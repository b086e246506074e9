//! What every verb is given, and how it prints.

use std::sync::Arc;

use crate::api::open_host_target;
use crate::sync::{HostTarget, HostTargetOptions};
use crate::text::{escape, escape_json};
use crate::{CancelToken, Error, Location, Result, Work};
use serde::Serialize;

use super::args::Common;
use super::print::print_line;
use super::progress::Bars;
use super::signals;

/// Threads, progress and output of one run.
pub(super) struct Context {
    pub common: Common,
    pub work: Work,
    pub progress: Arc<Bars>,
}

impl Context {
    /// Begins to listen for signals.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn new(common: &Common) -> Result<Self> {
        let cancel = CancelToken::new();
        let progress = Arc::new(Bars::new(common.quiet));
        signals::survive_file_size_limit()?;
        signals::watch(cancel.clone(), progress.clone())?;
        let work = Work::with_threads(common.threads)?
            .with_progress(progress.clone())
            .with_cancel(cancel)
            .with_limit_rate(common.limit_rate.unwrap_or(0));
        Ok(Context {
            common: common.clone(),
            work,
            progress,
        })
    }

    /// Prints a result: the object, or else the lines. A line stays one line, whatever is in it.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(super) fn print<L: Lines>(
        &self,
        object: &impl Serialize,
        lines: impl FnOnce() -> L,
    ) -> Result<()> {
        self.progress.clear();
        if self.common.json {
            return print_line(&to_json(object)?);
        }
        if self.common.quiet {
            return Ok(());
        }
        for line in lines().into_lines() {
            print_line(&escape(&line))?;
        }
        Ok(())
    }

    /// Opens a target that this host writes itself, and prints its warnings.
    ///
    /// # Errors
    /// Those of [`open_host_target`].
    pub(super) fn open_target(
        &self,
        at: &Location,
        options: &HostTargetOptions,
    ) -> Result<HostTarget> {
        let target = open_host_target(at, options, &self.common.connect(), &self.work)?;
        self.warn(target.warnings());
        Ok(target)
    }

    /// Tells of dangers that are no errors.
    pub(super) fn warn(&self, warnings: &[String]) {
        if !self.common.quiet {
            for warning in warnings {
                self.progress.say(&format!("warning: {warning}"));
            }
        }
    }
}

/// One line, or several.
pub(super) trait Lines {
    fn into_lines(self) -> Vec<String>;
}

impl Lines for String {
    fn into_lines(self) -> Vec<String> {
        vec![self]
    }
}

impl Lines for Vec<String> {
    fn into_lines(self) -> Vec<String> {
        self
    }
}

/// # Errors
/// `Io`: what cannot be said as JSON.
pub(super) fn to_json(object: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(object);
    let json = json.map_err(|e| Error::io("make JSON", std::io::Error::other(e)))?;
    Ok(escape_json(&json).into_owned())
}

/// The name of a value of an enum, as JSON spells it.
pub(super) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
