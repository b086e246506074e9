//! What the tests need to be there.

use std::process::Command;

/// Whether QEMU is there; if not, that is said.
pub fn qemu_is_there() -> bool {
    let is = Command::new("qemu-system-x86_64").arg("--version").output();
    if is.is_err() {
        eprintln!("LEFT OUT: qemu-system-x86_64 is not there");
    }
    is.is_ok()
}
