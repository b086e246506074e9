//! Stretches of a file's frames.

use std::ops::Range;

use super::frame::RawFrame;

/// A stretch of whole frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub at: Range<u64>,
    /// The sequence number of its first frame.
    pub sequence: u64,
}

/// Stretches that hold every frame of a file that is not guest data; where they are scattered,
/// also some that are.
#[derive(Debug, Default)]
pub(super) struct Sections(pub Vec<Section>);

impl Sections {
    /// Adds a frame; frames come in the order of the file.
    pub(super) fn note(&mut self, raw: &RawFrame) {
        match self.0.last_mut() {
            Some(last) if last.at.end == raw.at => last.at.end = raw.end(),
            _ => {
                self.coarsen();
                self.0.push(Section {
                    at: raw.at..raw.end(),
                    sequence: raw.header.sequence,
                });
            }
        }
    }

    /// Joins neighbours where there are very many: what is between them is passed over.
    fn coarsen(&mut self) {
        if self.0.len() < SECTIONS_MOST {
            return;
        }
        let joined = self.0.chunks(2).filter_map(|pair| {
            let (first, last) = (pair.first()?, pair.last()?);
            Some(Section {
                at: first.at.start..last.at.end,
                sequence: first.sequence,
            })
        });
        self.0 = joined.collect();
    }
}

/// 1.5 MiB of them.
pub(super) const SECTIONS_MOST: usize = 64 << 10;
