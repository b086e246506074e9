//! A sync under an async runtime: a thread works, the future waits, and dropping the future cancels
//! the work. The runtime here is three lines long; any other one does as well:
//! `async_runtime SOURCE TARGET`.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use diskdelta::{Disk, Result, SyncReport, Work};

async fn sync(source: String, target: String, work: Work) -> Result<SyncReport> {
    // Dropping this future drops the guard, which cancels the work of the thread.
    let guard = work.cancel().guard();
    let report = Blocking::run(move || Disk::open(source)?.sync_to(&target).run(&work)).await;
    guard.disarm();
    report
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, target] = &args[..] else {
        return Err("usage: async_runtime SOURCE TARGET".into());
    };
    let work = Work::new()?;
    let report = block_on(sync(source.clone(), target.clone(), work.child()))?;
    println!(
        "{:?}: {} bytes changed",
        report.outcome, report.changed_bytes
    );
    Ok(())
}

/// What `spawn_blocking` of a runtime does.
struct Blocking<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T: Send + 'static> Blocking<T> {
    fn run(work: impl FnOnce() -> T + Send + 'static) -> Self {
        let shared = Arc::new(Mutex::new((None, None::<Waker>)));
        let result = shared.clone();
        thread::spawn(move || {
            let done = work();
            let mut slot = result.lock().unwrap_or_else(PoisonError::into_inner);
            slot.0 = Some(done);
            if let Some(waker) = slot.1.take() {
                waker.wake();
            }
        });
        Blocking(shared)
    }
}

impl<T> Future for Blocking<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.1 = Some(context.waker().clone());
        slot.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
