//! Every state that a crash may leave, of every kind of work on a target: recovery makes it
//! entirely old or entirely new, and new once that was acknowledged.
//!
//! `DISKDELTA_CRASH_STATES` sets how many states are tried at each cut where there are too many to
//! try all; with `DISKDELTA_LONG` all kinds are sampled widely and each sync is dropped everywhere.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod barriers;
mod beside;
mod case;
mod cases;
mod check;
mod cut;
mod exhaustive;
mod failing;
mod forget;
mod held;
mod leftovers;
mod medium;
mod moved;
mod order;
mod remote;
mod sampled;
mod sequences;
mod taken_over;

/// Whether the tests may take long.
fn is_long() -> bool {
    std::env::var_os("DISKDELTA_LONG").is_some()
}
