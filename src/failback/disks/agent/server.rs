//! The end at the disks' host.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::callback_source::{CallbackSource, Told};
use super::messages::{AgentReply, AgentRequest, DiskRead, Task};
use super::ranges;
use super::state_dir::StateDir;
use crate::error::{ErrorKind, Result};
use crate::failback::disks::host_disks::HostDisks;
use crate::failback::vm::DiskChanges;
use crate::fencing::FencingToken;
use crate::progress::{CancelToken, Work};
use crate::remote::{
    DiskService, LineWatch, Message, OwnDirectories, Sandbox, ServeOptions, Served, Session, refuse,
};

/// Does what jobs of other hosts ask for of the disks of this one: what an agent does beside syncs.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskAgent;

impl DiskService for DiskAgent {
    fn serve(
        &self,
        session: Session,
        request: &[u8],
        options: &ServeOptions,
        work: &Work,
    ) -> Result<Served> {
        let watch = session.line().watch();
        let received = AgentRequest::decode(request).and_then(|mut request| {
            let lists = ranges::receive(&session, &request, work.cancel())?;
            restrict(&mut request, options)?;
            Ok((request, lists))
        });
        let (request, lists) = match received {
            Ok(received) => received,
            Err(error) => return refuse(session, error),
        };
        let callback_source = CallbackSource::new(session);
        let done = perform(&request, lists, &callback_source, &watch, options, work);
        let session = callback_source.take()?;
        match done.and_then(|reply| reply.encode()) {
            Ok(message) => {
                session.line().send(&Message::Told(message))?;
                session.finish();
                Ok(Served::Done)
            }
            Err(error) => refuse(session, error),
        }
    }
}

/// Makes all paths lie in the directory that this agent serves, and outside of what is its own.
fn restrict(request: &mut AgentRequest, options: &ServeOptions) -> Result<()> {
    let root = options.root.as_deref().map(Sandbox::open).transpose()?;
    let own = OwnDirectories::of(options.own_directories())?;
    let mut paths = Vec::new();
    for disk in &mut request.disks {
        paths.push(&mut disk.path);
        paths.extend(disk.other.as_mut());
    }
    let read = match &mut request.task {
        Task::Execute {
            changes: Some(from),
            ..
        } => &mut from[..],
        _ => &mut [],
    };
    paths.extend(read.iter_mut().filter_map(|from| from.here.as_mut()));
    for path in paths {
        if let Some(root) = &root {
            *path = root.resolve_new(path)?;
        }
        own.refuse(path)?;
    }
    Ok(())
}

fn perform(
    request: &AgentRequest,
    lists: Vec<Option<Vec<Range<u64>>>>,
    callback_source: &Arc<CallbackSource>,
    watch: &LineWatch,
    options: &ServeOptions,
    work: &Work,
) -> Result<AgentReply> {
    let is_over = || watch.is_over() || work.cancel().is_cancelled();
    let cancel = CancelToken::new();
    let quiet = work.clone().with_cancel(cancel.clone());
    let told = quiet
        .clone()
        .with_progress(Arc::new(Told::new(callback_source.clone())));
    let disks = |states: &Path| HostDisks::for_request(request, states, callback_source.clone());
    let (command, task) = ((request.side, request.token), &request.task);
    if request.only_looks() {
        let disks = disks(Path::new(""));
        return until(&is_over, &cancel, || {
            disks.answer(command, task, None, &quiet)
        });
    }
    let state_dir = StateDir::open(options)?;
    let fencing_token = FencingToken::new(state_dir.of_vm(request)?, &request.instance);
    let disks = disks(&fencing_token.disk_states());
    if *task == Task::ForgetWaysBack {
        fencing_token.pass()?;
        return disks.answer(command, task, None, &quiet);
    }
    let admitted = fencing_token.admit(request.token, &is_over)?;
    let is_stopped = || is_over() || admitted.check().is_err();
    let changes = match task {
        Task::Execute { changes, .. } => changes.as_ref().map(|from| sources(from, lists)),
        _ => None,
    };
    let done = until(&is_stopped, &cancel, || {
        disks.answer(command, task, changes.as_deref(), &told)
    });
    match done {
        // A newer command waits; that says more.
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            admitted.check()?;
            Err(error)
        }
        done => done,
    }
}

/// Does it, and asks for an end once `is_stopped`.
fn until<T>(
    is_stopped: &(dyn Fn() -> bool + Sync),
    cancel: &CancelToken,
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Acquire) {
                if is_stopped() {
                    return cancel.cancel();
                }
                std::thread::sleep(NAP);
            }
        });
        let _done = SetWhenDropped(&is_done);
        act()
    })
}

/// Set however what it stands for ends.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Where each disk is read; one without a path here is the client's.
fn sources(from: &[DiskRead], lists: Vec<Option<Vec<Range<u64>>>>) -> Vec<DiskChanges> {
    let one = |(from, changed): (&DiskRead, Option<Vec<Range<u64>>>)| DiskChanges {
        identity: from.identity.clone(),
        address: from.here.clone().unwrap_or_default().into(),
        changed,
    };
    from.iter().zip(lists).map(one).collect()
}

const NAP: Duration = Duration::from_millis(100);
