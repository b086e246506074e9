//! What a sync reads: a source, and what finds how it differs from a target.

pub(super) mod backend;
pub(super) mod checked;
pub(super) mod history;
pub(super) mod local;
pub(super) mod pass;
