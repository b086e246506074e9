//! The names of a replica's files.

/// Which link of which chain: chains are counted, each further one replaces those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    pub chain: u32,
    pub number: u32,
}

impl Link {
    pub(super) const FIRST: Link = Link {
        chain: 1,
        number: 1,
    };

    pub(super) fn next(self) -> Self {
        Link {
            number: self.number.saturating_add(1),
            ..self
        }
    }

    pub(super) fn next_chain(self) -> Self {
        Link {
            chain: self.chain.saturating_add(1),
            number: 1,
        }
    }

    pub(super) fn name(self, kind: &str) -> String {
        format!("{:04}-{:06}.{kind}.age", self.chain, self.number)
    }

    pub(super) fn parse(name: &str) -> Option<(Self, &'static str)> {
        let kind = [DELTA, MANIFEST]
            .into_iter()
            .find(|kind| name.ends_with(&format!(".{kind}.age")))?;
        let (chain, rest) = name.split_once('-')?;
        let link = Link {
            chain: chain.parse().ok()?,
            number: rest.split_once('.')?.0.parse().ok()?,
        };
        // There is one way to write each.
        (link.name(kind) == name).then_some((link, kind))
    }
}

/// A delta.
pub(super) const DELTA: &str = "delta";
/// The manifest of what the chain gives up to a link.
pub(super) const MANIFEST: &str = "manifest";
