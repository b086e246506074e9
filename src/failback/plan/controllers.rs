//! What a plan says of what controls VMs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::values::{Argv, Length, SocketDirectory};
use crate::failback::vm::VERBS;

/// How the VMs of a site are controlled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ControllerFile")]
#[non_exhaustive]
pub enum Controller {
    /// By the operator's programs: one for each verb, and one for all others.
    Commands {
        /// Program and arguments, by verb.
        verbs: BTreeMap<String, Vec<String>>,
        /// For verbs that are not named.
        default: Option<Vec<String>>,
        /// How long a program may take.
        time_limit: Duration,
    },
    /// By the program that runs the job, which gives a controller of its own for each VM.
    Own,
    /// Through QEMU's monitor.
    #[cfg(feature = "qemu")]
    Qemu {
        /// The VMs' directories lie in it, by name.
        directory: PathBuf,
        /// Program and arguments that start a VM's QEMU.
        start: Vec<String>,
        /// How long that may take, and how long a guest may take to shut down.
        time_limit: Duration,
    },
}

impl Controller {
    /// Whether VMs are controlled where their disks are.
    pub(super) fn needs_local_disks(&self) -> bool {
        !matches!(self, Controller::Commands { .. } | Controller::Own)
    }
}

/// As a plan has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerFile {
    kind: String,
    #[serde(default)]
    verbs: BTreeMap<Verb, Argv>,
    program: Option<Argv>,
    directory: Option<SocketDirectory>,
    start: Option<Vec<String>>,
    time_limit: Option<Length>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Verb(String);

impl TryFrom<String> for Verb {
    type Error = String;

    fn try_from(verb: String) -> Result<Self, String> {
        match VERBS.contains(&&verb[..]) {
            true => Ok(Verb(verb)),
            false => Err(format!(
                "there is no such verb; there are {}",
                VERBS.join(", ")
            )),
        }
    }
}

impl TryFrom<ControllerFile> for Controller {
    type Error = String;

    fn try_from(file: ControllerFile) -> Result<Self, String> {
        let verbs = file.verbs.into_iter().map(|(verb, argv)| (verb.0, argv.0));
        let verbs: BTreeMap<_, _> = verbs.collect();
        let default = file.program.map(Into::into);
        let time_limit = file.time_limit.map_or(TIME_LIMIT, Into::into);
        let of_commands = default.is_some() || !verbs.is_empty();
        let of_qemu = file.directory.is_some() || file.start.is_some();
        let wrong = match &file.kind[..] {
            "own" if of_commands || of_qemu => {
                "names nothing: the program that runs the job controls the VMs"
            }
            "own" => return Ok(Controller::Own),
            "commands" if of_qemu => "`directory` and `start` go with `kind = \"qemu\"`",
            "commands" => {
                let mut missing = VERBS.iter().filter(|verb| !verbs.contains_key(**verb));
                return match (&default, missing.next()) {
                    (None, Some(verb)) => Err(format!(
                        "no program for the verb `{verb}`, and no `program` for all"
                    )),
                    _ => Ok(Controller::Commands {
                        verbs,
                        default,
                        time_limit,
                    }),
                };
            }
            #[cfg(feature = "qemu")]
            "qemu" if of_commands => "`program` and `verbs` go with `kind = \"commands\"`",
            #[cfg(feature = "qemu")]
            "qemu" => {
                let start = file
                    .start
                    .filter(|argv| argv.first().is_some_and(|it| !it.is_empty()));
                match (file.directory, start) {
                    (None, _) => "needs `directory`, in which the VMs' directories lie",
                    (_, None) => "needs `start`, the program that starts a VM's QEMU",
                    (Some(directory), Some(start)) => {
                        return Ok(Controller::Qemu {
                            directory: directory.0,
                            start,
                            time_limit,
                        });
                    }
                }
            }
            kind => {
                return Err(format!(
                    "`{kind}` is not a controller; there are `commands`, `qemu`, `own`"
                ));
            }
        };
        Err(wrong.to_owned())
    }
}

const TIME_LIMIT: Duration = Duration::from_secs(600);
