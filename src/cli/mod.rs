//! Parse, call, print: everything else is in the library.

mod args;
mod connect_args;
mod context;
mod delta;
mod delta_file;
mod diff;
mod export;
#[cfg(feature = "failback")]
mod failback;
mod generate;
mod info;
#[cfg(feature = "tls")]
mod listen;
mod manifest;
mod outcome;
mod print;
mod progress;
mod recover;
mod serve;
mod signals;
mod sync;
mod sync_args;
mod sync_report;
mod undo;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use context::Context;

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return outcome::misused(&error, |words| Cli::try_parse_from(words).err()),
    };
    let context = match Context::new(&cli.common) {
        Ok(context) => context,
        Err(error) => return outcome::fail(&cli.common, &error.into()),
    };
    let ended = match &cli.verb {
        Verb::Info(args) => info::run(args, &context),
        Verb::Manifest(args) => manifest::run(args, &context),
        Verb::Diff(args) => diff::run(args, &context),
        Verb::Sync(args) => sync::run(args, &context),
        Verb::Verify(args) => verify::run(args, &context),
        Verb::Delta(args) => delta::run(args, &context),
        Verb::Undo(args) => undo::run(args, &context),
        Verb::Recover(args) => recover::run(args, &context),
        #[cfg(feature = "failback")]
        Verb::Failback(args) => failback::run(args, &context),
        Verb::Serve(args) => serve::run(args, &context),
        Verb::Completions(args) => generate::completions(args, &mut Cli::command()),
        Verb::Man(args) => generate::man(args, Cli::command()),
    };
    context.progress.clear();
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => outcome::fail(&cli.common, &failure),
    }
}

/// Makes one disk image hold what another holds
///
/// Only what differs moves, and the target is never half done: after a crash or an error at any
/// moment it is, or `diskdelta recover` makes it, entirely old or entirely new.
#[derive(Parser)]
#[command(name = "diskdelta", version, max_term_width = 100, after_help = AFTER_HELP)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: args::Common,
}

opaque!(Cli);

#[derive(Subcommand)]
enum Verb {
    Info(info::Args),
    Manifest(manifest::Args),
    Diff(diff::Args),
    Sync(Box<sync::Args>),
    Verify(verify::Args),
    Delta(delta::Args),
    Undo(undo::Args),
    Recover(recover::Args),
    #[cfg(feature = "failback")]
    Failback(failback::Args),
    Serve(serve::Args),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

const AFTER_HELP: &str = "\
Sizes are bytes, or 64K, 4M, 1G, 2T (powers of 1024). An image's format is chosen by its extension
(.vhd, .avhd, .vhdx, .avhdx, and .qcow2 and .vmdk in builds that read them; all else, and every
block device, is raw) or by an option.

Exit status: 0 done or identical; 1 differs; 2 an error; 3 interrupted, `recover` needed; 4 done,
but unreadable ranges were skipped.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_command_line_is_read_by_the_one_parser() {
        let mut commands = vec![Cli::command()];
        let mut count = 0;
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            for argument in command.get_arguments() {
                let parser = argument.get_value_parser();
                // What clap takes for a path by itself.
                let plain = [
                    clap::builder::ValueParser::path_buf(),
                    clap::builder::ValueParser::os_string(),
                ];
                for plain in plain {
                    let plain = format!("{plain:?}");
                    assert_ne!(format!("{parser:?}"), plain, "{}", argument.get_id());
                }
                count += 1;
            }
        }
        let least = if cfg!(feature = "failback") { 100 } else { 50 };
        assert!(count > least, "{count}");
    }
}
