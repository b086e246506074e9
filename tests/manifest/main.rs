//! Manifests, through the public interface.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod building;
#[cfg(feature = "testing")]
mod crashing;
mod differing;
mod hostile;
mod keeping;
mod reference;
mod samples;
