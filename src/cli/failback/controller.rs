//! Tries the programs that control VMs.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::outcome::{Ended, Exit};
use crate::duration::parse_duration;
use crate::failback::job::ProgramTrial;

#[derive(Subcommand)]
pub(super) enum ControllerVerb {
    /// Try all that a job asks of a program on a VM that is off, and may be lost
    ///
    /// The VM is started, shut down, fenced, retired and made again, and its disks are renamed.
    Test(TestArgs),
}

#[derive(clap::Args)]
pub(super) struct TestArgs {
    /// VM to try it on
    #[arg(long, value_name = "NAME")]
    vm: String,
    /// Disk of the VM, as the plan names it, and its file; may be repeated
    #[arg(long, value_name = "IDENTITY=FILE", required = true, value_parser = disk)]
    disk: Vec<(String, PathBuf)>,
    /// Network that the VM must have; may be repeated
    #[arg(long, value_name = "NAME")]
    network: Vec<String>,
    /// How long the program may take for a verb
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    time_limit: Duration,
    /// Program and arguments; the verb is added
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<String>,
}

fn disk(text: &str) -> Result<(String, PathBuf), String> {
    let (identity, file) = text.split_once('=').ok_or("not IDENTITY=FILE")?;
    let file = std::path::absolute(file).map_err(|e| e.to_string())?;
    Ok((identity.to_owned(), file))
}

/// A sentence of the contract, and whether the program keeps it.
#[derive(Serialize)]
struct Tried {
    sentence: &'static str,
    holds: bool,
    why: Option<String>,
}

#[derive(Serialize)]
struct Trial<'a> {
    program: &'a [String],
    holds: bool,
    sentences: &'a [Tried],
}

pub(super) fn test(args: &TestArgs, context: &Context) -> Ended {
    let trial = ProgramTrial {
        program: args.program.clone(),
        time_limit: args.time_limit,
        vm: args.vm.clone(),
        networks: args.network.clone(),
        disks: args.disk.clone(),
    };
    let mut sentences = Vec::new();
    trial.run(&mut |sentence, held| {
        sentences.push(Tried {
            sentence,
            holds: held.is_ok(),
            why: held.err().map(|error| error.to_string()),
        });
    });
    let holds = sentences.iter().all(|it| it.holds);
    let object = Trial {
        program: &args.program,
        holds,
        sentences: &sentences,
    };
    context.print(&object, || sentences.iter().map(line).collect::<Vec<_>>())?;
    Ok(if holds { Exit::Done } else { Exit::Error })
}

fn line(tried: &Tried) -> String {
    match &tried.why {
        None => format!("ok  {}", tried.sentence),
        Some(why) => format!("NO  {}: {why}", tried.sentence),
    }
}
