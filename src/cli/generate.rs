//! `diskdelta completions` and `diskdelta man`: made from the definitions of the command line.

use std::path::PathBuf;

use crate::Error;
use clap::Command;
use clap_complete::Shell;

use super::args;
use super::outcome::{Ended, Exit};

/// Print completions for a shell
#[derive(clap::Args)]
pub(super) struct CompletionsArgs {
    /// Shell
    shell: Shell,
}

/// Print the man page
#[derive(clap::Args)]
pub(super) struct ManArgs {
    /// Write a page for every command into DIR instead
    #[arg(long, value_name = "DIR", value_parser = args::here())]
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs, command: &mut Command) -> Ended {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, command, "diskdelta", &mut bytes);
    print(&bytes)
}

pub(super) fn man(args: &ManArgs, command: Command) -> Ended {
    if let Some(dir) = &args.dir {
        clap_mangen::generate_to(command, dir)
            .map_err(|cause| Error::io("write man pages", cause).at_path(dir))?;
        return Ok(Exit::Done);
    }
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut bytes)
        .map_err(|cause| Error::io("make the man page", cause))?;
    print(&bytes)
}

fn print(bytes: &[u8]) -> Ended {
    super::print::print_line(&String::from_utf8_lossy(bytes))?;
    Ok(Exit::Done)
}
