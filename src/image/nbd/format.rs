//! Numbers of the NBD protocol, by the names that its document gives them (`doc/proto.md`).

/// First words of the server.
pub(super) const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
pub(super) const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// Before each reply to an option.
pub(super) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Before each request, and before the two kinds of replies.
pub(super) const REQUEST: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY: u32 = 0x6744_6698;
pub(super) const STRUCTURED_REPLY: u32 = 0x668e_33ef;

/// Handshake flags, of the server and of the client.
pub(super) const FLAG_FIXED_NEWSTYLE: u16 = 1;
pub(super) const FLAG_NO_ZEROES: u16 = 2;

pub(super) const OPT_STARTTLS: u32 = 5;
pub(super) const OPT_GO: u32 = 7;
pub(super) const OPT_STRUCTURED_REPLY: u32 = 8;
pub(super) const OPT_SET_META_CONTEXT: u32 = 10;

pub(super) const REP_ACK: u32 = 1;
pub(super) const REP_INFO: u32 = 3;
pub(super) const REP_META_CONTEXT: u32 = 4;
/// Set in replies that refuse an option.
pub(super) const REP_ERROR: u32 = 1 << 31;
pub(super) const REP_ERR_UNSUPPORTED: u32 = REP_ERROR | 1;
pub(super) const REP_ERR_POLICY: u32 = REP_ERROR | 2;
pub(super) const REP_ERR_TLS_REQD: u32 = REP_ERROR | 5;
pub(super) const REP_ERR_UNKNOWN: u32 = REP_ERROR | 6;

pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flags.
pub(super) const EXPORT_HAS_FLAGS: u16 = 1;
pub(super) const EXPORT_CAN_MULTI_CONN: u16 = 1 << 8;

pub(super) const CMD_READ: u16 = 0;
pub(super) const CMD_DISC: u16 = 2;
pub(super) const CMD_BLOCK_STATUS: u16 = 7;

pub(super) const CHUNK_DONE: u16 = 1;
pub(super) const CHUNK_NONE: u16 = 0;
pub(super) const CHUNK_OFFSET_DATA: u16 = 1;
pub(super) const CHUNK_OFFSET_HOLE: u16 = 2;
pub(super) const CHUNK_BLOCK_STATUS: u16 = 5;
/// Set in chunks that say what went wrong.
pub(super) const CHUNK_ERROR: u16 = 1 << 15;

pub(super) const CONTEXT_ALLOCATION: &str = "base:allocation";
/// Before the name of a bitmap.
pub(super) const CONTEXT_BITMAP: &str = "qemu:dirty-bitmap:";
/// `base:allocation`: the range reads as zeros.
pub(super) const STATE_ZERO: u32 = 2;
/// `qemu:dirty-bitmap`: the range was written.
pub(super) const STATE_DIRTY: u32 = 1;
