//! Conflicts that pass.

use std::time::Duration;

use crate::error::{ErrorKind, Result};

/// Looks at a conflict a few times within a third of a second: a child process between fork and
/// exec holds copies of all handles, so that a lock can outlive its owner for a moment; and tools
/// that look at every device open each for a moment.
pub(in crate::storage) fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in PAUSES_MS {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::InUse => {}
            outcome => return outcome,
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    attempt()
}

const PAUSES_MS: [u64; 5] = [10, 20, 40, 80, 160];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_conflict_is_looked_at_again_and_nothing_else_is() {
        let attempts = |kind: ErrorKind, last: usize| {
            let mut count = 0;
            let outcome = patiently(|| {
                count += 1;
                match count < last {
                    true => Err(Error::new(kind, "not yet")),
                    false => Ok(()),
                }
            });
            (count, outcome.is_ok())
        };
        assert_eq!(attempts(ErrorKind::InUse, 3), (3, true));
        assert!(!attempts(ErrorKind::InUse, 99).1);
        assert_eq!(attempts(ErrorKind::Io, 3), (1, false));
    }
}
