//! Ctrl-C, SIGTERM and SIGHUP ask the work to stop; the second time at once.

use std::sync::Arc;

use diskdelta::{CancelToken, Error, ErrorKind, Result};

use super::progress::Bars;

/// Turns signals into requests on `cancel`.
///
/// # Errors
/// `Io`.
pub fn watch(cancel: CancelToken, progress: Arc<Bars>) -> Result<()> {
    let asked = move || {
        progress.say(if cancel.is_cancelled() {
            "stopping at once"
        } else {
            "stopping; a second signal stops at once and may leave the target to `recover`"
        });
        cancel.cancel();
    };
    ctrlc::set_handler(asked)
        .map_err(|cause| Error::new(ErrorKind::Io, "cannot listen for signals").caused_by(cause))
}
