//! What a sync reads: a source, and what finds how it differs from a target.

pub(super) mod backend;
pub(super) mod checked;
pub(super) mod fetch_log;
pub(super) mod history;
pub(super) mod local;
pub(super) mod pass;
pub(super) mod recalled;
