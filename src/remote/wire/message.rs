//! Messages: what a frame says, checked as far as one message can be.

use std::ops::Range;

use super::codec::{Put, Take, put_ranges, take_ranges, wrong};
use super::comparison::{Blocks, Data, Pages, Parts, Segments};
use super::format::{CLAIMED_MOST, LIST_MOST, MAGIC, kind};
use super::frame::WireFrame;
use super::nodes::{Nodes, NodesAre, Tree};
use super::outcome::{Fault, RemoteOutcome};
use super::request::{Opened, RemoteJob};
use crate::error::Result;
use crate::sync::Claim;

/// Everything that the two ends say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Both ends, first of all.
    Hello(Hello),
    /// The client, next: what it wants.
    RemoteJob(Box<RemoteJob>),
    /// The end with the source: what it holds.
    Opened(Box<Opened>),
    /// Nothing but a sign of life.
    Alive,
    /// An end gives up.
    Fail(Box<Fault>),
    /// The end with the target: all is done.
    Complete(Option<Box<RemoteOutcome>>),
    /// The client, instead of a job: something beside a sync, in words of the layer
    /// above.
    Ask(Vec<u8>),
    /// The other one: what comes of it.
    Told(Vec<u8>),
    /// The end with the target: some of the ranges that it will compare next. Behind an
    /// [`Ask`](Message::Ask), ranges that belong to it.
    Windows(Vec<Range<u64>>),
    /// The end with the target: compare.
    Compare(Compare),
    /// The end with the target: are these true?
    Claims(Claims),
    /// The end with the source: for each group of claims, in their order, whether all are.
    Answers(Vec<bool>),
    /// The end with the target: is the source what it was?
    Check,
    /// The end with the source: it is.
    Checked,
    /// The end with the target: what it has a manifest of.
    Tree(Tree),
    /// The end with the source: the root of its own manifest, where that may stand in.
    TreeIs(Option<[u8; 32]>),
    /// The end with the target: what are the children of these nodes?
    Nodes(Nodes),
    /// The end with the source: the children.
    NodesAre(NodesAre),
    /// Step 1, from the source.
    Segments(Segments),
    /// Step 2, from the target.
    Blocks(Blocks),
    /// Step 3, from the source.
    Parts(Parts),
    /// Step 4, from the target.
    Pages(Pages),
    /// Step 5, from the source.
    Data(Data),
    /// The root of the source; all its segments were sent.
    Root([u8; 32]),
    /// All ranges of one piece of the view that the source cannot read.
    Unreadable(Vec<Range<u64>>),
}

/// A greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version spoken.
    pub version_least: u16,
    /// The newest.
    pub version_most: u16,
    /// A bit for each optional feature.
    pub features: u32,
    /// Half of what the session's key is made of.
    pub random: [u8; 32],
}

/// What to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compare {
    /// The length that the source's disk is seen with; zeros lie behind its end.
    pub disk_len: u64,
    /// Bytes of a hash on the line.
    pub hash_len: u8,
    /// How many windows were sent; none stands for all of the disk.
    pub window_count: u64,
    /// Whether a manifest may stand for reading the source, where one of it may.
    pub from_manifest: bool,
    /// Whether data messages come without their bytes.
    pub counts_only: bool,
    /// Whether the source passes over what it cannot read.
    pub skips: bool,
}

/// Claims in groups that are answered as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The length that the source's disk is seen with.
    pub disk_len: u64,
    /// The ranges; of each group the BLAKE3 of its ranges' BLAKE3s.
    pub groups: Vec<(Vec<Range<u64>>, [u8; 32])>,
}

impl Claims {
    /// The hash that stands for a group.
    pub fn digest(claims: &[Claim]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        claims.iter().for_each(|claim| {
            hasher.update(claim.hash.as_bytes());
        });
        hasher.finalize().into()
    }
}

impl Message {
    /// The frame's kind and payload.
    pub fn encode(&self) -> WireFrame {
        let mut out = Put::default();
        let kind = match self {
            Message::Hello(hello) => {
                out.raw(&MAGIC);
                out.raw(&hello.version_least.to_le_bytes());
                out.raw(&hello.version_most.to_le_bytes());
                out.raw(&hello.features.to_le_bytes());
                out.raw(&hello.random);
                kind::HELLO
            }
            Message::RemoteJob(job) => {
                job.put(&mut out);
                kind::JOB
            }
            Message::Opened(opened) => {
                opened.put(&mut out);
                kind::OPENED
            }
            Message::Alive => kind::ALIVE,
            Message::Fail(fault) => {
                fault.put(&mut out);
                kind::FAIL
            }
            Message::Complete(outcome) => {
                out.flag(outcome.is_some());
                if let Some(outcome) = outcome {
                    outcome.put(&mut out);
                }
                kind::COMPLETE
            }
            Message::Ask(words) => {
                out.raw(words);
                kind::ASK
            }
            Message::Told(words) => {
                out.raw(words);
                kind::TOLD
            }
            Message::Windows(windows) => {
                put_ranges(windows, &mut out);
                kind::WINDOWS
            }
            Message::Compare(compare) => {
                out.number(compare.disk_len);
                out.byte(compare.hash_len);
                out.number(compare.window_count);
                // An end without the features knows nothing of this byte.
                let how = u8::from(compare.from_manifest)
                    | u8::from(compare.counts_only) << 1
                    | u8::from(compare.skips) << 2;
                if how != 0 {
                    out.byte(how);
                }
                kind::COMPARE
            }
            Message::Claims(claims) => {
                out.number(claims.disk_len);
                out.number(claims.groups.len() as u64);
                for (ranges, hash) in &claims.groups {
                    put_ranges(ranges, &mut out);
                    out.raw(hash);
                }
                kind::CLAIMS
            }
            Message::Answers(answers) => {
                out.number(answers.len() as u64);
                answers.iter().for_each(|answer| out.flag(*answer));
                kind::ANSWERS
            }
            Message::Check => kind::CHECK,
            Message::Checked => kind::CHECKED,
            Message::Tree(tree) => {
                tree.put(&mut out);
                kind::TREE
            }
            Message::TreeIs(root) => {
                out.flag(root.is_some());
                out.raw(root.as_ref().map_or(&[], |root| &root[..]));
                kind::TREE_IS
            }
            Message::Nodes(nodes) => {
                nodes.put(&mut out);
                kind::NODES
            }
            Message::NodesAre(nodes) => {
                nodes.put(&mut out);
                kind::NODES_ARE
            }
            Message::Segments(segments) => {
                segments.put(&mut out);
                kind::SEGMENTS
            }
            Message::Blocks(blocks) => {
                blocks.put(&mut out);
                kind::BLOCKS
            }
            Message::Parts(parts) => {
                parts.put(&mut out);
                kind::PARTS
            }
            Message::Pages(pages) => {
                pages.put(&mut out);
                kind::PAGES
            }
            Message::Data(data) => {
                data.put(&mut out);
                kind::DATA
            }
            Message::Root(root) => {
                out.raw(root);
                kind::ROOT
            }
            Message::Unreadable(ranges) => {
                put_ranges(ranges, &mut out);
                kind::UNREADABLE
            }
        };
        WireFrame {
            kind,
            payload: out.0,
        }
    }

    /// What `frame` says, where hashes on the line have `hash_len` bytes.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn decode(frame: &WireFrame, hash_len: usize) -> Result<Message> {
        let mut from = Take(&frame.payload);
        let message = match frame.kind {
            kind::HELLO => Message::Hello(Hello::take(&mut from)?),
            kind::JOB => Message::RemoteJob(Box::new(RemoteJob::take(&mut from)?)),
            kind::OPENED => Message::Opened(Box::new(Opened::take(&mut from)?)),
            kind::ALIVE => Message::Alive,
            kind::FAIL => Message::Fail(Box::new(Fault::take(&mut from)?)),
            kind::COMPLETE => Message::Complete(match from.flag()? {
                true => Some(Box::new(RemoteOutcome::take(&mut from)?)),
                false => None,
            }),
            kind::ASK => Message::Ask(from.rest().to_vec()),
            kind::TOLD => Message::Told(from.rest().to_vec()),
            kind::WINDOWS => Message::Windows(take_ranges(&mut from)?),
            kind::COMPARE => Message::Compare(Compare::take(&mut from)?),
            kind::CLAIMS => Message::Claims(take_claims(&mut from)?),
            kind::ANSWERS => {
                let count = from.count(LIST_MOST)?;
                Message::Answers((0..count).map(|_| from.flag()).collect::<Result<_>>()?)
            }
            kind::CHECK => Message::Check,
            kind::CHECKED => Message::Checked,
            kind::TREE => Message::Tree(Tree::take(&mut from)?),
            kind::TREE_IS => Message::TreeIs(match from.flag()? {
                true => Some(from.array()?),
                false => None,
            }),
            kind::NODES => Message::Nodes(Nodes::take(&mut from)?),
            kind::NODES_ARE => Message::NodesAre(NodesAre::take(&mut from)?),
            kind::SEGMENTS => Message::Segments(Segments::take(&mut from, hash_len)?),
            kind::BLOCKS => Message::Blocks(Blocks::take(&mut from, hash_len)?),
            kind::PARTS => Message::Parts(Parts::take(&mut from, hash_len)?),
            kind::PAGES => Message::Pages(Pages::take(&mut from, hash_len)?),
            kind::DATA => Message::Data(Data::take(&mut from)?),
            kind::ROOT => Message::Root(from.array()?),
            kind::UNREADABLE => Message::Unreadable(take_ranges(&mut from)?),
            _ => return Err(wrong("a message of an unknown kind")),
        };
        from.end()?;
        Ok(message)
    }

    /// What it is, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "a greeting",
            Message::RemoteJob(_) => "a job",
            Message::Opened(_) => "a description of its disk",
            Message::Alive => "a sign of life",
            Message::Fail(_) => "an error",
            Message::Complete(_) => "that it is done",
            Message::Ask(_) | Message::Told(_) => "a request",
            Message::Windows(_) | Message::Compare(_) => "a comparison",
            Message::Claims(_) | Message::Answers(_) => "claims",
            Message::Check | Message::Checked => "a check",
            Message::Tree(_) | Message::TreeIs(_) => "a root of a manifest",
            Message::Nodes(_) | Message::NodesAre(_) => "nodes of a manifest",
            Message::Segments(_) => "hashes of segments",
            Message::Blocks(_) => "hashes of blocks",
            Message::Parts(_) => "hashes of parts",
            Message::Pages(_) => "hashes of pages",
            Message::Data(_) => "data",
            Message::Root(_) => "a root",
            Message::Unreadable(_) => "what it cannot read",
        }
    }
}

impl Hello {
    fn take(from: &mut Take<'_>) -> Result<Hello> {
        if from.array()? != MAGIC {
            return Err(wrong("something other than diskdelta's greeting"));
        }
        Ok(Hello {
            version_least: from.u16()?,
            version_most: from.u16()?,
            features: u32::from_le_bytes(from.array()?),
            random: from.array()?,
        })
    }
}

impl Compare {
    fn take(from: &mut Take<'_>) -> Result<Compare> {
        let (disk_len, hash_len, window_count) = (from.number()?, from.byte()?, from.number()?);
        let how = match from.is_empty() {
            true => 0,
            false => match from.byte()? {
                how @ 1..8 => how,
                _ => return Err(wrong("a comparison in a way that is not known")),
            },
        };
        Ok(Compare {
            disk_len,
            hash_len,
            window_count,
            from_manifest: how & 1 != 0,
            counts_only: how & 2 != 0,
            skips: how & 4 != 0,
        })
    }
}

fn take_claims(from: &mut Take<'_>) -> Result<Claims> {
    let disk_len = from.number()?;
    let count = from.count(LIST_MOST)?;
    let mut groups = Vec::new();
    let (mut ranges_count, mut bytes) = (0, 0u64);
    for _ in 0..count {
        let ranges = take_ranges(from)?;
        ranges_count += ranges.len();
        bytes = ranges.iter().fold(bytes, |sum, range| {
            sum.saturating_add(range.end - range.start)
        });
        if ranges_count > LIST_MOST || bytes > CLAIMED_MOST {
            return Err(wrong("more claims than go into one message"));
        }
        groups.push((ranges, from.array()?));
    }
    Ok(Claims { disk_len, groups })
}
