//! VHD images: reading, writing, creating, and every way in which a file can lie.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod hostile;
mod model;
mod oracle;
mod parents;
mod samples;
mod support;
