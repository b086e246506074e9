//! What a plan says of what controls VMs.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;

use super::file::{ControllerFile, HooksFile};
use super::types::Controller;
use super::validate::Check;
#[cfg(feature = "qemu")]
use super::values::HostPath;
use crate::error::Result;
use crate::failback::vm::VERBS;

impl Check<'_> {
    /// How the VMs of a site are controlled.
    pub(super) fn controller(
        &self,
        site: &str,
        file: Spanned<ControllerFile>,
    ) -> Result<Controller> {
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
        let time_limit = time_limit.map_or(TIME_LIMIT, |it| it.0);
        let of_commands = program.is_some() || !verbs.is_empty();
        let of_qemu = directory.is_some() || start.is_some();
        match &kind[..] {
            "own" if of_commands || of_qemu => {
                let why = "names nothing: the program that runs the job controls the VMs";
                Err(self.wrong(&key, at, why))
            }
            "own" => Ok(Controller::Own),
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
                let why =
                    format!("`{kind}` is not a controller; there are `commands`, `qemu`, `own`");
                Err(self.wrong(&key, at, why))
            }
        }
    }

    /// The program that hears of what happens.
    pub(super) fn hook(&self, hooks: Option<HooksFile>) -> Result<Option<Vec<String>>> {
        let Some(HooksFile { program }) = hooks else {
            return Ok(None);
        };
        let at = program.span().start;
        match program.get_ref().first() {
            Some(name) if !name.is_empty() => Ok(Some(program.into_inner())),
            _ => Err(self.wrong("hooks.program", at, "no program is named")),
        }
    }

    /// The controller of a site whose VMs the operator's programs control.
    fn commands(
        &self,
        key: &str,
        at: usize,
        verbs: BTreeMap<Spanned<String>, Vec<String>>,
        default: Option<Vec<String>>,
        time_limit: Duration,
    ) -> Result<Controller> {
        let named = |argv: &[String]| argv.first().is_some_and(|program| !program.is_empty());
        let mut known = BTreeMap::new();
        for (verb, argv) in verbs {
            let key = format!("{key}.verbs.{}", verb.get_ref());
            if !VERBS.contains(&&verb.get_ref()[..]) {
                let all = VERBS.join(", ");
                let why = format!("there is no such verb; there are {all}");
                return Err(self.wrong(&key, verb.span().start, why));
            }
            if !named(&argv) {
                return Err(self.wrong(&key, verb.span().start, "no program is named"));
            }
            known.insert(verb.into_inner(), argv);
        }
        if default.as_deref().is_some_and(|argv| !named(argv)) {
            return Err(self.wrong(&format!("{key}.program"), at, "no program is named"));
        }
        let missing = VERBS.iter().find(|verb| !known.contains_key(**verb));
        if let (None, Some(verb)) = (&default, missing) {
            let why = format!("no program for the verb `{verb}`, and no `program` for all");
            return Err(self.wrong(key, at, why));
        }
        Ok(Controller::Commands {
            verbs: known,
            default,
            time_limit,
        })
    }

    #[cfg(feature = "qemu")]
    /// The controller of a site whose VMs run under QEMU.
    fn qemu(
        &self,
        key: &str,
        at: usize,
        directory: Option<Spanned<HostPath>>,
        start: Option<Vec<String>>,
        time_limit: Duration,
    ) -> Result<Controller> {
        let Some(directory) = directory else {
            let why = "needs `directory`, in which the VMs' directories lie";
            return Err(self.wrong(key, at, why));
        };
        let (path_at, path) = (directory.span().start, directory.into_inner().0);
        // A socket's path has an end; better here than in the middle of a job.
        if path.as_os_str().len() > DIRECTORY_MAX {
            let why = format!("is longer than {DIRECTORY_MAX} bytes: sockets could not be in it");
            return Err(self.wrong(&format!("{key}.directory"), path_at, why));
        }
        let start = start.filter(|argv| argv.first().is_some_and(|program| !program.is_empty()));
        let Some(start) = start else {
            let why = "needs `start`, the program that starts a VM's QEMU";
            return Err(self.wrong(key, at, why));
        };
        Ok(Controller::Qemu {
            directory: path,
            start,
            time_limit,
        })
    }
}

const TIME_LIMIT: Duration = Duration::from_secs(600);
#[cfg(feature = "qemu")]
const DIRECTORY_MAX: usize = 80;
