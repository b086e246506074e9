//! What each target does with its input.

pub mod apply;
pub mod chain;
pub mod change_map;
pub mod delta;
pub mod http;
pub mod manifest;
pub mod nbd;
pub mod recover;
pub mod remote;
pub mod vhd;
pub mod vhdx;
