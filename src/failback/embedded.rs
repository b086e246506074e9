//! A job that another program runs, with controllers of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::job::{Event, JobDirectory, JobRunner, JobStatus, OwnControllers, modes};
use super::machine::Request;
use super::plan::{Plan, SiteName, Vm};
use super::vm::VmController;
use crate::error::Result;
use crate::progress::Work;

/// A job, from its plan to its end.
///
/// # Examples
/// ```no_run
/// use std::sync::Arc;
///
/// use diskdelta::failback::Job;
/// use diskdelta::failback::machine::Request;
/// use diskdelta::failback::plan::Plan;
/// use diskdelta::failback::vm::VmController;
/// use diskdelta::{Result, Work};
///
/// fn bring_home(plan: &Plan, my_vm: Arc<dyn VmController>) -> Result<()> {
///     let work = Work::new()?;
///     let job = Job::begin("/var/lib/my-tool", plan, "my tool", &work)?
///         .controllers(move |_site, _vm| Some(my_vm.clone()))
///         .auto(&[Request::Complete, Request::Commit]);
///     let status = job.run(&mut |event| println!("{event:?}"), &work)?;
///     println!("{}", status.vms[0].phase);
///     Ok(())
/// }
/// ```
pub struct Job {
    directory: JobDirectory,
    by: String,
    controllers: Box<OwnControllers>,
    auto: Vec<Request>,
}

opaque!(Job);

impl Job {
    /// Begins the job of a plan, which is kept in `state_dir`; nothing is touched yet. What the
    /// plan leaves open is decided by an estimate.
    ///
    /// # Errors
    /// Those of [`JobDirectory::create`] and of [`estimate`](super::job::estimate).
    pub fn begin(state_dir: impl AsRef<Path>, plan: &Plan, by: &str, work: &Work) -> Result<Self> {
        let modes = modes(plan, work)?;
        let directory = JobDirectory::create(state_dir.as_ref(), plan.text(), modes, by)?;
        Ok(Self::of(directory, by))
    }

    /// Goes on with the job called `name`, which another process has left.
    ///
    /// # Errors
    /// Those of [`JobDirectory::open`].
    pub fn resume(state_dir: impl AsRef<Path>, name: &str, by: &str) -> Result<Self> {
        JobDirectory::open(state_dir.as_ref(), name).map(|directory| Self::of(directory, by))
    }

    fn of(directory: JobDirectory, by: &str) -> Self {
        Job {
            directory,
            by: by.to_owned(),
            controllers: Box::new(|_, _| None),
            auto: Vec::new(),
        }
    }

    /// Has VMs controlled by what `controllers` gives for each at each site; `None`: as the plan
    /// says.
    #[must_use]
    pub fn controllers(
        mut self,
        controllers: impl Fn(SiteName, &Vm) -> Option<Arc<dyn VmController>> + 'static,
    ) -> Self {
        self.controllers = Box::new(controllers);
        self
    }

    /// Has these requests made, one after the other, each as soon as it is allowed. A job starts
    /// by itself.
    #[must_use]
    pub fn auto(mut self, requests: &[Request]) -> Self {
        self.auto = requests.to_vec();
        self
    }

    /// The job's directory: where it stands, and where other requests are made.
    pub fn directory(&self) -> &JobDirectory {
        &self.directory
    }

    /// Runs the job until it is at rest, or `work` is cancelled; it can be resumed then.
    ///
    /// # Errors
    /// Those of [`JobRunner::resume`] and of [`JobRunner::run`].
    pub fn run(self, on_event: &mut dyn FnMut(Event), work: &Work) -> Result<JobStatus> {
        let leave = work.cancel().clone();
        let runner =
            JobRunner::resume_with(self.directory.clone(), &*self.controllers, work, leave)?;
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| self.directory.ask_in_turn(&self.auto, &self.by, &is_done));
            let ended = runner.run(None, on_event);
            is_done.store(true, Ordering::Release);
            ended.and(asks.join().unwrap_or(Ok(())))
        })?;
        self.directory.status()
    }
}
