//! Drives an end of a descent: messages over a line, work on a pool.

use std::sync::{Mutex, PoisonError};

use super::endpoint::{Capacity, Endpoint, Output, Worker};
use crate::error::Result;
use crate::progress::Work;
use crate::remote::wire::connection::Line;
use crate::remote::wire::message::Message;

/// Goes on until `end` is finished; `hash_len` is how long hashes are on the line, `awaited` what
/// errors say that was waited for, and `look` sees the end from time to time. Memory is what the
/// end holds, and a piece of work for each thread and two more.
///
/// # Errors
/// Those of the end, of its work and of the line.
pub(in crate::remote) fn drive<E, W>(
    end: &mut E,
    worker: &W,
    line: &Line,
    hash_len: usize,
    awaited: &'static str,
    work: &Work,
    look: &mut dyn FnMut(&E),
) -> Result<()>
where
    E: Endpoint,
    W: Worker<Task = E::Task, Completion = E::Completion>,
{
    let results = Mutex::new(Vec::new());
    let most = work.pool().current_num_threads().min(TASKS_MOST) + 2;
    work.pool().in_place_scope(|scope| {
        let mut busy = 0;
        loop {
            work.cancel().check()?;
            let rings = line.rings();
            let done = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
            for result in done {
                busy -= 1;
                end.complete(result?)?;
            }
            let mut is_idle = false;
            while !is_idle {
                // What came goes before more hashing, or every message would wait for all of it. It
                // stays on the line while there is no hand free for it.
                // What comes after the last message is not for this end. An end that only answers
                // takes no more while its answers wait for the line; the other end always does, so
                // that two ends that send at the same time never wait for each other.
                let is_taken = busy < most && (!E::ONLY_ANSWERS || line.has_room());
                let frame = if is_taken && !end.is_finished() {
                    line.try_receive()?
                } else {
                    None
                };
                is_idle = frame.is_none();
                if let Some(frame) = frame {
                    match Message::decode(&frame, hash_len)? {
                        Message::Fail(fault) => return Err(fault.error()),
                        message => end.receive(message)?,
                    }
                }
                let capacity = Capacity {
                    tasks: busy < most,
                    line: line.has_room(),
                };
                match end.next_output(capacity)? {
                    Some(Output::Send(message)) => line.send(&message)?,
                    Some(Output::Run(task)) => {
                        busy += 1;
                        let results = &results;
                        scope.spawn(move |_| {
                            let result = worker.perform(task);
                            let mut all = results.lock().unwrap_or_else(PoisonError::into_inner);
                            all.push(result);
                            drop(all);
                            line.ring();
                        });
                    }
                    None => continue,
                }
                is_idle = false;
            }
            look(end);
            if busy == 0 && end.is_finished() {
                return Ok(());
            }
            line.wait(rings, awaited, work.cancel())?;
        }
    })
}

/// Each task may hold a segment of both disks.
const TASKS_MOST: usize = 16;
