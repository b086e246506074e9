//! The words of `diskdelta failback`.

use std::path::PathBuf;

use clap::Subcommand;

use super::controller::ControllerVerb;
use super::requests::{self, How};
use crate::Error;
use crate::cli::args;
use crate::failback::job::{JobDirectory, STATE_DIR};
use crate::failback::plan::Plan;

/// Move running virtual machines to the other site, as a plan says
///
/// One process runs a job; others watch it and ask it for things. Where no process runs it, a
/// request runs it here and says so, unless it is made with `--detach`.
#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// Directory of the jobs
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = STATE_DIR,
        value_parser = args::here()
    )]
    pub state_dir: PathBuf,
    /// Operator, for the record [the user]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub by: Option<String>,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// A plan, or some of its VMs.
#[derive(clap::Args)]
pub(super) struct ChosenPlan {
    /// Plan file
    #[arg(value_parser = args::here())]
    plan: PathBuf,
    /// Move only this VM of the plan; may be repeated [all]
    #[arg(long, value_name = "NAME")]
    vm: Vec<String>,
    /// Name of the job [the plan's]
    #[arg(long = "job", value_name = "NAME")]
    job: Option<String>,
}

impl ChosenPlan {
    pub(super) fn load(&self) -> Result<Plan, Error> {
        Plan::load(&self.plan)?.choose(&self.vm, self.job.as_deref())
    }
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Check the prerequisites of a plan one by one; changes nothing
    Check {
        #[command(flatten)]
        plan: ChosenPlan,
    },
    /// Show what a plan would move, in which direction and how; changes nothing
    Plan {
        #[command(flatten)]
        plan: ChosenPlan,
    },
    /// Begin a job, and run it
    Start {
        #[command(flatten)]
        plan: ChosenPlan,
        /// Begin; without it, only show what would be done
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        how: How,
    },
    /// Run a job that its process has left, or every job that needs a process
    #[command(visible_alias = "resume")]
    Run {
        #[arg(required_unless_present = "all")]
        job: Option<String>,
        /// Run all jobs that need a process, and those that come later, until it is stopped
        #[arg(long, conflicts_with = "job")]
        all: bool,
    },
    /// Show where jobs stand, and which requests they accept
    Status {
        /// Job [all, in one line each]
        job: Option<String>,
        /// Leave out jobs that are over, or superseded by a later one
        #[arg(long)]
        active: bool,
        /// Show it again and again, until the job rests
        #[arg(long)]
        watch: bool,
    },
    /// Test the failover: boot a copy of the target's disks in isolation; the source runs on
    Test {
        job: String,
        /// End the test, and remove what it has made
        #[arg(long)]
        end: bool,
        #[command(flatten)]
        how: How,
    },
    /// Cut over: shut the source down, copy the rest, start the target
    Complete {
        job: String,
        #[command(flatten)]
        how: How,
    },
    /// Start the source again, before the target was started; copies stay
    Abort {
        job: String,
        #[command(flatten)]
        how: How,
    },
    /// Give a job up while its source runs; the target's disks stay unbootable
    Cancel {
        job: String,
        /// Restore the target's disks to what they were (`keep_undo` in the plan)
        #[arg(long)]
        restore: bool,
        #[command(flatten)]
        how: How,
    },
    /// Stop the target after it was started, and start the source again
    Undo {
        job: String,
        /// Confirm that data written by the target is lost
        #[arg(long)]
        accept_loss: bool,
        /// Restore the target's disks to what they were (`keep_undo` in the plan)
        #[arg(long)]
        restore: bool,
        #[command(flatten)]
        how: How,
    },
    /// Retire the source for good
    Commit {
        job: String,
        #[command(flatten)]
        how: How,
    },
    /// Replicate the other way from now on, copying only what changed
    Reverse {
        job: String,
        #[command(flatten)]
        how: How,
    },
    /// Retry what a job stands still on
    Retry {
        job: String,
        #[command(flatten)]
        how: How,
    },
    /// Show everything that happened
    Log { job: String },
    /// Show what a job needs to continue, condition by condition
    Explain { job: String },
    /// Try a program that controls VMs
    Controller {
        #[command(subcommand)]
        verb: ControllerVerb,
    },
}

impl Args {
    pub(super) fn open(&self, job: &str) -> Result<JobDirectory, Error> {
        JobDirectory::open(&self.state_dir, job)
    }

    pub(super) fn by(&self) -> String {
        requests::operator(self.by.as_deref())
    }
}
