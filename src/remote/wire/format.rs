//! What is on the line: the only place that knows the numbers. See docs/reference/protocol.md.

/// The version of the protocol that this crate speaks, and the oldest that it still does.
pub const VERSION: u16 = 1;
/// See [`VERSION`].
pub const VERSION_LEAST: u16 = 1;

/// The first bytes of a greeting.
pub const MAGIC: [u8; 8] = *b"ddremote";

/// Feature: payloads of data messages may be zstd frames.
pub const FEATURE_ZSTD: u32 = 1;
/// Feature: manifests may stand for reading a disk, and their trees are compared first.
pub const FEATURE_MANIFESTS: u32 = 2;
/// Feature: data messages may come without bytes, for a comparison that only counts.
pub const FEATURE_COUNTS: u32 = 4;
/// Feature: a source may pass over what it cannot read, and says what that is.
pub const FEATURE_GAPS: u32 = 8;
/// Feature: a source may be looked at while others write to it.
pub const FEATURE_LIVE: u32 = 16;
/// Feature: an agent does what it is asked for beside syncs.
pub const FEATURE_DISK_AGENT: u32 = 32;
/// Feature: a source may begin with a marker that its guest wrote, where that is declared.
pub const FEATURE_MARKERS: u32 = 64;
/// Feature: an agent reads the holes of its file or device where a job asks for it.
pub const FEATURE_HOLES: u32 = 128;
/// Feature: an agent may open addresses of web servers.
pub const FEATURE_ADDRESSES: u32 = 256;
/// All features of this version; others are left out of what both ends agree on.
pub const FEATURES: u32 = FEATURE_ZSTD
    | FEATURE_MANIFESTS
    | FEATURE_COUNTS
    | FEATURE_GAPS
    | FEATURE_LIVE
    | FEATURE_DISK_AGENT
    | FEATURE_MARKERS
    | FEATURE_HOLES
    | FEATURE_ADDRESSES;

/// A frame's header: kind (1), reserved (1, zero), payload length (4), CRC-32 (4).
pub const FRAME_HEADER_LEN: usize = 10;
/// Longest payload of a frame, in bytes.
pub const PAYLOAD_MOST: usize = 2 << 20;

/// Longest text in a message, in bytes: paths, errors.
pub const TEXT_MOST: usize = 16 << 10;
/// Most windows, and most claims, in one message.
pub const LIST_MOST: usize = 4096;
/// Most windows of one comparison.
pub const WINDOWS_MOST: usize = 1 << 20;
/// Most guest bytes that one message of claims may have read.
pub const CLAIMED_MOST: u64 = 16 << 20;
/// Most guest bytes in one data message.
pub const DATA_MOST: usize = 1 << 20;

/// Most nodes of a tree in one message.
pub const NODES_MOST: usize = 64;
/// Bytes of a hash of a node's child.
pub const NODE_HASH_LEN: usize = 16;
/// The lowest nodes of a tree that are compared: their children have 256 blocks each.
pub const NODE_LEVEL_LEAST: u32 = 2;
/// Levels that no tree has.
pub const NODE_LEVEL_END: u32 = 16;

/// A page, the smallest thing that moves.
pub const PAGE: u64 = 4 << 10;
/// A part of a block.
pub const PART: u64 = 16 << 10;
/// A block: what has a full hash, and a bit in the manifest.
pub const BLOCK: u64 = 64 << 10;
/// A segment: the coarsest thing that is compared.
pub const SEGMENT: u64 = 1 << 20;
/// A piece: what is hashed in one go, and what one message of what cannot be read is about.
pub const PIECE: u64 = 8 << 20;
/// A batch: what each comparison message is about.
pub const BATCH: u64 = 64 << 20;

/// Pages in a part.
pub const PART_PAGES: u32 = (PART / PAGE) as u32;
/// Parts in a block.
pub const BLOCK_PARTS: u32 = (BLOCK / PART) as u32;
/// Pages in a block.
pub const BLOCK_PAGES: u32 = (BLOCK / PAGE) as u32;
/// Blocks in a segment.
pub const SEGMENT_BLOCKS: u32 = (SEGMENT / BLOCK) as u32;
/// Segments in a batch.
pub const BATCH_SEGMENTS: u32 = (BATCH / SEGMENT) as u32;
/// Pieces in a batch.
pub const BATCH_PIECES: u64 = BATCH / PIECE;
/// Blocks in a batch.
pub const BATCH_BLOCKS: u32 = (BATCH / BLOCK) as u32;

/// Most batches of a source that are not finished yet.
pub const WINDOW_BATCHES: usize = 64;

/// Shortest hash on the line that an end agrees to, in bytes.
pub const SHORT_HASH_LEAST: usize = 1;
/// What is used unless something speaks against it.
pub const SHORT_HASH_LEN: usize = 5;
/// What is used after a descent that missed something; the longest there is.
pub const LONG_HASH_LEN: usize = 16;

/// Kinds of frames.
pub mod kind {
    /// Greeting.
    pub const HELLO: u8 = 1;
    /// What the client wants.
    pub const JOB: u8 = 2;
    /// What the source is.
    pub const OPENED: u8 = 3;
    /// Nothing but a sign of life.
    pub const ALIVE: u8 = 4;
    /// An end gives up.
    pub const FAIL: u8 = 5;
    /// The job is done.
    pub const COMPLETE: u8 = 6;
    /// What the client wants beside a sync.
    pub const ASK: u8 = 7;
    /// The answer to that.
    pub const TOLD: u8 = 8;
    /// An end sends nothing more.
    pub const END: u8 = 9;
    /// Ranges that the next comparison is about.
    pub const WINDOWS: u8 = 16;
    /// Compare.
    pub const COMPARE: u8 = 17;
    /// Are these claims true?
    pub const CLAIMS: u8 = 18;
    /// They are, or not.
    pub const ANSWERS: u8 = 19;
    /// Is the source what it was?
    pub const CHECK: u8 = 20;
    /// It is.
    pub const CHECKED: u8 = 21;
    /// Has the source a manifest with this root?
    pub const TREE: u8 = 22;
    /// The root that it has, if any.
    pub const TREE_IS: u8 = 23;
    /// What are the children of these nodes?
    pub const NODES: u8 = 24;
    /// They are.
    pub const NODES_ARE: u8 = 25;
    /// Hashes of a batch's segments, from the source.
    pub const SEGMENTS: u8 = 32;
    /// Hashes of the blocks of segments that differ, from the target.
    pub const BLOCKS: u8 = 33;
    /// Hashes of the parts of blocks that differ, from the source.
    pub const PARTS: u8 = 34;
    /// Hashes of the pages of parts that differ, from the target.
    pub const PAGES: u8 = 35;
    /// Pages that differ.
    pub const DATA: u8 = 36;
    /// The root of the source.
    pub const ROOT: u8 = 37;
    /// What of a piece the source cannot read.
    pub const UNREADABLE: u8 = 38;
}
