//! Parts of failback, one by one.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod address;
#[cfg(not(feature = "encryption"))]
mod encryption;
mod forecast;
mod mailbox;
#[cfg(feature = "qemu")]
mod qmp;
