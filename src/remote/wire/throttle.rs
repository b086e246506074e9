//! How fast one direction of a line may be.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::token_bucket::TokenBucket;

/// A speed limit on bytes that go one way; lines that share one are held to it together.
#[derive(Debug)]
pub(in crate::remote) struct Throttle {
    bucket: TokenBucket,
    clock: Arc<dyn Clock>,
}

/// Where a throttle has its time from.
pub(in crate::remote) trait Clock: fmt::Debug + Send + Sync {
    /// The time since some moment.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

impl Throttle {
    /// Lets this many bytes through a second, at least 1.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Throttle::on(bytes_per_second, Arc::new(System(Instant::now())))
    }

    /// The same by another clock.
    pub(crate) fn on(bytes_per_second: u64, clock: Arc<dyn Clock>) -> Self {
        Throttle {
            bucket: TokenBucket::new(bytes_per_second),
            clock,
        }
    }

    /// How many bytes should be moved at a time: those of a tenth of a second, so that neither the
    /// other end nor a thread that waits for this one takes a slow line for a dead one.
    pub(crate) fn piece_bytes(&self) -> usize {
        let tenth = usize::try_from(self.bucket.bytes_per_second() / 10).unwrap_or(usize::MAX);
        tenth.clamp(PIECE_LEAST, PIECE_MOST)
    }

    /// Returns once `bytes` more may have gone.
    pub(crate) fn admit(&self, bytes: u64) {
        let until = self.bucket.book(bytes, self.clock.now());
        let left = until.saturating_sub(self.clock.now());
        if !left.is_zero() {
            self.clock.sleep(left);
        }
    }
}

#[derive(Debug)]
struct System(Instant);

impl Clock for System {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

const PIECE_LEAST: usize = 1 << 10;
const PIECE_MOST: usize = 256 << 10;

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::progress::CancelToken;
    use crate::remote::{Claims, Line, LineOptions, Message};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    /// Time passes only where a thread waits.
    #[derive(Debug, Default)]
    struct Fake(Mutex<Duration>);

    impl Clock for Fake {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    /// What was moved by when.
    type Transfers = Arc<Mutex<Vec<(Duration, u64)>>>;

    struct Watched<T> {
        stream: T,
        clock: Arc<Fake>,
        transfers: Transfers,
        bytes: u64,
    }

    impl<T> Watched<T> {
        fn note(&mut self, count: usize) -> usize {
            self.bytes += count as u64;
            let entry = (self.clock.now(), self.bytes);
            self.transfers.lock().unwrap().push(entry);
            count
        }
    }

    impl<T: Write> Write for Watched<T> {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            let count = self.stream.write(buf)?;
            Ok(self.note(count))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            self.stream.flush()
        }
    }

    impl<T: Read> Read for Watched<T> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let count = self.stream.read(buf)?;
            Ok(self.note(count))
        }
    }

    const RATE: u64 = 100_000;

    /// Sends bulk over a line of which one end is watched and held to a rate; returns the
    /// transfers.
    fn moved(slow_sender: bool) -> Vec<(Duration, u64)> {
        let (here, there) = UnixStream::pair().unwrap();
        let clock = Arc::new(Fake::default());
        let transfers = Transfers::default();
        let throttle = || Arc::new(Throttle::on(RATE, clock.clone()));
        let watched = |stream: UnixStream| Watched {
            stream,
            clock: clock.clone(),
            transfers: transfers.clone(),
            bytes: 0,
        };
        let free = LineOptions::default();
        let (sender, receiver) = if slow_sender {
            let slow = free.clone().with_throttles(Some(throttle()), None);
            (
                Line::new(here.try_clone().unwrap(), watched(here), slow).unwrap(),
                Line::new(there.try_clone().unwrap(), there, free).unwrap(),
            )
        } else {
            let slow = free.clone().with_throttles(None, Some(throttle()));
            (
                Line::new(here.try_clone().unwrap(), here, free).unwrap(),
                Line::new(watched(there.try_clone().unwrap()), there, slow).unwrap(),
            )
        };
        let group = |at: u64| (std::iter::once(at * 2..at * 2 + 1).collect(), [7; 32]);
        let message = Message::Claims(Claims {
            disk_len: 1 << 40,
            groups: (0..500).map(group).collect(),
        });
        for _ in 0..40 {
            sender.send(&message).unwrap();
        }
        for _ in 0..40 {
            let come = receiver.receive("bulk", &CancelToken::new()).unwrap();
            assert_eq!(come, message);
        }
        let transfers = transfers.lock().unwrap();
        transfers.clone()
    }

    #[test]
    fn no_more_than_the_limit_goes_either_way_and_in_small_pieces() {
        for slow_sender in [true, false] {
            let transfers = moved(slow_sender);
            let (end, total) = *transfers.last().unwrap();
            assert!(total > 600_000, "{total}");
            let mut before = 0;
            for (at, bytes) in &transfers {
                let piece = bytes - before;
                assert!(piece <= RATE / 10, "{piece} bytes at once");
                // What was read counts once it is there.
                let sure = if slow_sender { *bytes } else { before };
                assert!(
                    sure as f64 <= at.as_secs_f64() * RATE as f64 + 1.0,
                    "{bytes} at {at:?}"
                );
                before = *bytes;
            }
            let seconds = total as f64 / RATE as f64;
            assert!(
                (end.as_secs_f64() - seconds).abs() < 0.2,
                "{end:?} for {total}"
            );
        }
    }

    #[test]
    fn two_lines_share_one_limit() {
        let clock = Arc::new(Fake::default());
        let throttle = Throttle::on(1000, clock.clone());
        for _ in 0..10 {
            throttle.admit(500);
            throttle.admit(500);
        }
        assert_eq!(clock.now(), Duration::from_secs(10));
        // Unused time is not saved up.
        clock.sleep(Duration::from_secs(60));
        throttle.admit(2000);
        assert_eq!(clock.now(), Duration::from_secs(72));
    }
}
