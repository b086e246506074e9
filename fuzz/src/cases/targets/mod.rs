//! What each target does with its input.

pub mod apply;
pub mod chain;
pub mod delta;
pub mod manifest;
pub mod recover;
pub mod remote;
pub mod vhd;
pub mod vhdx;
