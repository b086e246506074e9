//! Bounds on what a file, a peer or a caller may make this crate do.

use crate::setters::setters;

/// Upper bounds that every number stated by a file is held against before it is used to allocate,
/// multiply or seek.
///
/// The defaults admit every image that the formats' own rules admit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Longest virtual disk, in bytes: 64 TiB, what VHDX allows.
    pub disk_bytes: u64,
    /// Most memory that the tables of an image and of all its parents may take, in bytes. Half of
    /// it, and no more than 32 MiB, is for the ranges that a sync keeps account of; more ranges
    /// are kept in a temporary file, or rounded out where that only means to read more.
    pub table_bytes: u64,
    /// Most links in a chain of parents.
    pub chain_count: usize,
    /// Longest payload of one delta frame, in bytes, before and after decompression.
    pub frame_bytes: u32,
    /// Longest log of a VHDX that is replayed, in bytes.
    pub log_bytes: u64,
}

setters! {
    Limits:
    /// Replaces [`Limits::disk_bytes`].
    with_disk_bytes, disk_bytes: u64;
    /// Replaces [`Limits::table_bytes`].
    with_table_bytes, table_bytes: u64;
    /// Replaces [`Limits::chain_count`].
    with_chain_count, chain_count: usize;
    /// Replaces [`Limits::frame_bytes`].
    with_frame_bytes, frame_bytes: u32;
    /// Replaces [`Limits::log_bytes`].
    with_log_bytes, log_bytes: u64;
}

impl Limits {
    /// Most memory for the ranges that one piece of work keeps account of, in bytes.
    pub(crate) fn ranges_bytes(&self) -> u64 {
        (self.table_bytes / 2).min(RANGES_BYTES)
    }
}

/// 2 Mi ranges.
const RANGES_BYTES: u64 = 32 << 20;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            disk_bytes: 64 << 40,
            table_bytes: 64 << 20,
            chain_count: 256,
            frame_bytes: 16 << 20,
            log_bytes: 64 << 20,
        }
    }
}
