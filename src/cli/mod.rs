//! Parse, call, print: everything else is in the library.

mod advice;
mod args;
mod changes;
mod connect_args;
mod context;
mod delta;
mod delta_file;
mod diff;
mod examples;
mod export;
#[cfg(feature = "failback")]
mod failback;
mod generate;
mod info;
#[cfg(feature = "tls")]
mod listen;
mod manifest;
mod map;
mod map_picture;
mod outcome;
mod print;
mod progress;
mod recover;
mod serve;
mod signals;
mod sync;
mod sync_args;
mod sync_report;
mod tls_args;
mod undo;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use context::Context;

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return outcome::misused(&error, |words| parse(words).err()),
    };
    let context = match Context::new(&cli.common) {
        Ok(context) => context,
        Err(error) => return outcome::fail(&cli.common, &error.into()),
    };
    let ended = match &cli.verb {
        Verb::Info(args) => info::run(args, &context),
        Verb::Map(args) => map::run(args, &context),
        Verb::Manifest(args) => manifest::run(args, &context),
        Verb::Diff(args) => diff::run(args, &context),
        Verb::Sync(args) => sync::run(args, &context),
        Verb::Verify(args) => verify::run(args, &context),
        Verb::Delta(args) => delta::run(args, &context),
        Verb::Undo(args) => undo::run(args, &context),
        Verb::Recover(args) => recover::run(args, &context),
        #[cfg(feature = "failback")]
        Verb::Failback(args) => failback::run(args, &context),
        #[cfg(windows)]
        Verb::NoFailback(_) => NoFailback::refuse(),
        Verb::Serve(args) => serve::run(args, &context),
        Verb::Completions(args) => generate::completions(args, &mut command()),
        Verb::Man(args) => generate::man(args, command()),
    };
    context.progress.clear();
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => outcome::fail(&cli.common, &failure.during_work(cli.verb.work())),
    }
}

/// The command line, with examples under the help of each command.
fn command() -> Command {
    examples::add(Cli::command(), "")
}

fn parse<W: Into<OsString> + Clone>(
    words: impl IntoIterator<Item = W>,
) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Make one disk image hold what another holds
///
/// Only what differs moves, and the target is never half done: after a crash or an error it is
/// entirely old or entirely new, or `diskdelta recover` makes it so.
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
    Map(map::Args),
    Manifest(manifest::Args),
    Diff(diff::Args),
    Sync(Box<sync::Args>),
    Verify(verify::Args),
    Delta(delta::Args),
    Undo(undo::Args),
    Recover(recover::Args),
    #[cfg(feature = "failback")]
    Failback(failback::Args),
    #[cfg(windows)]
    #[command(name = "failback", hide = true)]
    NoFailback(NoFailback),
    Serve(serve::Args),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// Is refused
#[cfg(windows)]
#[derive(clap::Args)]
struct NoFailback {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _all: Vec<String>,
}

#[cfg(windows)]
impl NoFailback {
    fn refuse() -> outcome::Ended {
        let what = "failback is not supported on Windows";
        Err(crate::Error::new(crate::ErrorKind::Unsupported, what)
            .advise("run it on a Linux host, with this one as an `ssh://` target")
            .into())
    }
}

impl Verb {
    /// What it does to the file or device that an error names.
    fn work(&self) -> &'static str {
        match self {
            Verb::Info(_) | Verb::Manifest(_) | Verb::Map(_) => "read",
            Verb::Diff(_) => "compare",
            Verb::Sync(_) => "sync",
            Verb::Verify(_) => "verify",
            Verb::Delta(_) => "process",
            Verb::Undo(_) => "undo",
            Verb::Recover(_) => "recover",
            #[cfg(feature = "failback")]
            Verb::Failback(_) => "use",
            #[cfg(windows)]
            Verb::NoFailback(_) => "use",
            Verb::Serve(_) => "serve",
            Verb::Completions(_) | Verb::Man(_) => "write",
        }
    }
}

const AFTER_HELP: &str = "\
Sizes are bytes, or 64K, 4M, 1G, 2T (powers of 1024). The extension chooses an image's format (.vhd,
.avhd, .vhdx, .avhdx, and .qcow2 and .vmdk in builds that read them; everything else, and every
block device, is raw), or an option.

Examples:
  diskdelta sync web.vhd /dev/vg0/web
  diskdelta recover /dev/vg0/web

Exit status: 0 done or identical; 1 different; 2 an error; 3 interrupted, `recover` needed; 4 done,
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

    #[test]
    fn short_help_fits_a_screen() {
        each(&|path, command| {
            let help = command.clone().term_width(100).render_help().to_string();
            let lines = help.lines().count();
            assert!(lines <= 40, "{path}: {lines} lines\n{help}");
            let longest = help.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(100), "{path}\n{help}");
        });
    }

    #[test]
    fn every_command_has_two_examples_that_parse() {
        each(&|path, command| {
            let after = command.get_after_help().map(ToString::to_string);
            let after = after.unwrap_or_default();
            let examples = after
                .lines()
                .filter_map(|line| line.strip_prefix("  diskdelta"));
            let mut count = 0;
            for example in examples {
                let words = format!("diskdelta{example}");
                let words = words.split_whitespace().map(|word| word.trim_matches('\''));
                if let Err(error) = parse(words) {
                    assert!(!error.use_stderr(), "{path}: {example}: {error}");
                }
                count += 1;
            }
            assert!(count >= 2, "{path}: {count} examples");
        });
    }

    #[test]
    fn help_texts_begin_with_what_to_do() {
        each(&|path, command| {
            let about = command.get_about().map(ToString::to_string);
            assert_text(path, &about.unwrap_or_default());
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string);
                let name = format!("{path} {}", argument.get_id());
                assert_text(&name, &help.unwrap_or_default());
            }
        });
    }

    /// A text begins with a capital, and not with a verb in the third person.
    fn assert_text(name: &str, text: &str) {
        let first = text.split_whitespace().next().unwrap_or_default();
        let third = [
            "Makes", "Reads", "Writes", "Shows", "Says", "Prints", "Takes", "Goes", "Gives",
            "Keeps", "Lets", "Leaves", "Begins", "Runs", "Checks", "Ends", "Is", "Finishes",
        ];
        assert!(!third.contains(&first), "{name}: {text}");
        // A positional argument may explain itself.
        let capital = first.chars().next().is_none_or(|it| !it.is_lowercase());
        assert!(capital || first == "zstd", "{name}: {text}");
    }

    /// Calls `look` with each command and its words.
    fn each(look: &dyn Fn(&str, &Command)) {
        let mut top = command();
        top.build();
        let mut waiting = vec![(String::new(), top)];
        while let Some((path, command)) = waiting.pop() {
            look(&path, &command);
            for inner in command.get_subcommands() {
                if inner.get_name() != "help" {
                    waiting.push((format!("{path} {}", inner.get_name()), inner.clone()));
                }
            }
        }
    }
}
