//! Trying again when a line breaks.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::progress::Work;

/// How often, and after what pauses, a job is begun again whose line broke.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Retry {
    /// How many times more.
    pub count: u32,
    /// The first pause; each further one is twice as long.
    pub pause: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Retry {
    /// Not again.
    fn default() -> Self {
        Retry::new(0)
    }
}

impl Retry {
    /// `count` times more, after a second at first and half a minute at most.
    pub fn new(count: u32) -> Self {
        Retry {
            count,
            pause: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        }
    }

    /// Replaces [`Retry::pause`].
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Calls `attempt` until it is done, fails for good, or has failed too often; `error_of` finds
    /// the error in what it fails with. Only errors of kind `Io` are worth another attempt; once
    /// there was one, also those of kind `InUse`: the other end may still hold for the line that
    /// broke what the next one wants.
    ///
    /// # Errors
    /// That of the last attempt.
    pub fn run<T, E: From<Error>>(
        &self,
        work: &Work,
        error_of: impl Fn(&E) -> &Error,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut pause = self.pause;
        let mut left = self.count;
        let mut has_broken = false;
        loop {
            let failed = match attempt() {
                Err(failed) if left > 0 => failed,
                ended => return ended,
            };
            match error_of(&failed).kind() {
                ErrorKind::Io => has_broken = true,
                ErrorKind::InUse if has_broken => {}
                _ => return Err(failed),
            }
            left -= 1;
            let seconds = pause.as_secs_f64();
            let error = error_of(&failed);
            work.progress()
                .note(&format!("{error}; trying again in {seconds:.0} s"));
            wait(pause, work)?;
            pause = (pause * 2).min(self.longest);
        }
    }
}

fn wait(pause: Duration, work: &Work) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < pause {
        work.cancel().check()?;
        std::thread::sleep(NAP.min(pause));
    }
    Ok(())
}

const NAP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(retry: &Retry, kind: ErrorKind, works_at: u32) -> (u32, Result<u32>) {
        let work = Work::with_threads(1).unwrap();
        let mut count = 0;
        let ended = retry.run(
            &work,
            |error: &Error| error,
            || {
                count += 1;
                match count == works_at {
                    true => Ok(count),
                    false => Err(Error::new(kind, "broken")),
                }
            },
        );
        (count, ended)
    }

    #[test]
    fn a_broken_line_is_tried_again_and_nothing_else_is() {
        let retry = Retry::new(3).with_pause(Duration::ZERO);
        assert_eq!(attempts(&retry, ErrorKind::Io, 3).0, 3);
        let (count, ended) = attempts(&retry, ErrorKind::Io, 9);
        assert!(count == 4 && ended.is_err());
        let (count, ended) = attempts(&retry, ErrorKind::InvalidInput, 2);
        assert!(count == 1 && ended.is_err());
        let (count, ended) = attempts(&Retry::new(0), ErrorKind::Io, 2);
        assert!(count == 1 && ended.is_err());
    }

    #[test]
    fn what_the_broken_line_still_holds_is_waited_for() {
        let retry = Retry::new(5).with_pause(Duration::ZERO);
        let (count, ended) = attempts(&retry, ErrorKind::InUse, 2);
        assert!(count == 1 && ended.is_err());
        let mut kinds = [ErrorKind::Io, ErrorKind::InUse, ErrorKind::InUse].into_iter();
        let ended = retry.run(
            &Work::with_threads(1).unwrap(),
            |error: &Error| error,
            || match kinds.next() {
                Some(kind) => Err(Error::new(kind, "broken, then held")),
                None => Ok(()),
            },
        );
        ended.unwrap();
    }
}
