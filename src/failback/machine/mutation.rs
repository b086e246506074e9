//! Ways to break the machine on purpose, for tests.

use super::phase::JobPhase;

/// What is wrong with a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mutation {
    /// Rows that are missing from the table: phase (`""`: all phases) and condition.
    pub dropped: Vec<(&'static str, &'static str)>,
    /// What was known of a resource is still trusted while a command to it is under way.
    pub remembers: bool,
}

impl Mutation {
    pub(super) fn drops(&self, phase: JobPhase, condition: &str) -> bool {
        self.dropped
            .iter()
            .any(|(p, c)| *c == condition && (p.is_empty() || *p == phase.name()))
    }
}
