//! Ctrl-C, SIGTERM and SIGHUP (on Windows Ctrl-C, Ctrl-Break and closing the console) ask the work
//! to stop; the second time at once. SIGXFSZ is survived.

use std::sync::Arc;

use crate::{CancelToken, Error, ErrorKind, Result};

use super::progress::Bars;

/// Turns signals into requests on `cancel`.
///
/// # Errors
/// `Io`.
pub(super) fn watch(cancel: CancelToken, progress: Arc<Bars>) -> Result<()> {
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

/// Has a file that grows beyond the limit of this process be an error of the write, and not the
/// end of the process. Programs that it starts have the signal as it is by default: a handler is
/// not inherited.
///
/// # Errors
/// `Io`.
#[cfg(unix)]
pub(super) fn survive_file_size_limit() -> Result<()> {
    let seen = Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen)
        .map(drop)
        .map_err(|cause| Error::io("listen for signals", cause))
}

/// Windows has no such limit.
///
/// # Errors
/// None.
#[cfg(windows)]
pub(super) fn survive_file_size_limit() -> Result<()> {
    Ok(())
}
