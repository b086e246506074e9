//! Rings a bell when a file gets a name in a directory.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::bell::Bell;

/// Watches a directory until it is dropped.
pub(crate) struct Watch {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Rings `bell` whenever a file is renamed to a name in `directory`; `None` where this cannot
    /// be watched (a directory in memory, the system's limit on watches), and is to be looked at
    /// now and then. Changes that other hosts make to a network directory may be missed.
    pub(crate) fn of(directory: &Path, bell: &Bell) -> Option<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        let what = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&events, directory, what).ok()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).ok()?;
        let (stopped, bell) = (stop.try_clone().ok()?, bell.clone());
        let thread = std::thread::Builder::new()
            .name("diskdelta-watch".to_owned())
            .spawn(move || watch(&events, &stopped, &bell))
            .ok()?;
        Some(Watch {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let told = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let (Some(thread), Ok(_)) = (self.thread.take(), told) {
            let _ = thread.join();
        }
    }
}

fn watch(events: &OwnedFd, stopped: &OwnedFd, bell: &Bell) {
    loop {
        let mut fds = [
            PollFd::new(events, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        // What it was is looked up in the directory.
        let mut buffer = [MaybeUninit::uninit(); 4096];
        while rustix::io::read(events, &mut buffer).is_ok_and(|(read, _)| !read.is_empty()) {}
        bell.ring();
    }
}

#[cfg(test)]
#[path = "../../../../tests/inside/storage/watch.rs"]
mod tests;
