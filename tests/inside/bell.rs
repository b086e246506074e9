//! The bell that wakes a thread, from inside.

use super::*;

#[test]
fn a_ring_ends_a_wait_also_one_that_begins_later() {
    let bell = Bell::new();
    let hour = Duration::from_secs(3600);
    bell.ring();
    bell.wait(hour);
    std::thread::scope(|scope| {
        scope.spawn(|| bell.ring());
        bell.wait(hour);
    });
    bell.wait(Duration::ZERO);
}
