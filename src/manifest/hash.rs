//! Reading an image and hashing its blocks on all threads, in one pass.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::hash::Hash;

use super::plan::{Part, Plan, UNIT_BYTES, Unit};
use super::ranges::RangeSet;
use super::write::Sink;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::progress::Work;
use crate::storage::AlignedBuf;
use crate::units::{BlockSize, PAGE_BYTES, is_zero};

/// Sees blocks while their bytes are at hand; called from several threads, in no order.
///
/// It must not wait for other work on the same thread pool.
pub trait Visit: Sync {
    /// Neighbouring blocks that were read; they may be zero all the same.
    ///
    /// # Errors
    /// Any; the pass stops with it.
    fn data(&self, run: &HashedRun<'_>) -> Result<()>;

    /// Blocks known to be zero without reading them.
    ///
    /// # Errors
    /// Any; the pass stops with it.
    fn zeros(&self, blocks: Range<u64>) -> Result<()>;
}

/// A visitor that does not look.
impl Visit for () {
    fn data(&self, _run: &HashedRun<'_>) -> Result<()> {
        Ok(())
    }

    fn zeros(&self, _blocks: Range<u64>) -> Result<()> {
        Ok(())
    }
}

/// Neighbouring blocks with their bytes and hashes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HashedRun<'a> {
    /// Number of the first block.
    pub first_block: u64,
    /// Bytes a block; the last block of the disk may be shorter.
    pub block_size: BlockSize,
    /// The guest bytes of all blocks.
    pub bytes: &'a [u8],
    /// A hash for each block; `None` where it is zero.
    pub hashes: &'a [Option<Hash>],
}

impl<'a> HashedRun<'a> {
    /// Number, bytes and hash of each block.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, &'a [u8], Option<Hash>)> {
        let bytes = blocks_of(self.bytes, self.block_size);
        let hashes = self.hashes.iter().copied();
        let numbered = (self.first_block..).zip(bytes).zip(hashes);
        numbered.map(|((block, bytes), hash)| (block, bytes, hash))
    }
}

/// One pass over an image: what is read, on whose threads, and who gets progress.
///
/// Holes are never read; memory is a buffer for each thread and a bounded number of hashes. Reads
/// are admitted by the [`Work`]'s speed limit, and its cancel token is asked at least every 4 MiB
/// or block. Progress advances by guest bytes, holes included; the caller begins the phase.
#[must_use]
pub struct HashPass<'a> {
    image: &'a dyn Image,
    block_size: BlockSize,
    work: &'a Work,
    within: Option<RangeSet>,
}

opaque!(HashPass<'_>);

impl<'a> HashPass<'a> {
    /// A pass over all blocks of `image`.
    pub fn new(image: &'a dyn Image, block_size: BlockSize, work: &'a Work) -> Self {
        HashPass {
            image,
            block_size,
            work,
            within: None,
        }
    }

    /// Only the blocks that these byte ranges touch; what lies beyond the disk is left out.
    pub fn within(mut self, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        self.within = Some(RangeSet::of(ranges));
        self
    }

    /// Reads and hashes; `visit` sees the blocks as they come, `sink` takes them in order.
    ///
    /// # Errors
    /// `Unreadable` with the guest offset of the first byte that a read failed on; `Cancelled`;
    /// `Malformed` and others from the image; those of `visit` and `sink`.
    pub fn run(self, visit: &dyn Visit, sink: &mut dyn Sink) -> Result<()> {
        let threads = self.workers();
        let ahead = usize::try_from(self.image.look_ahead_bytes() / UNIT_BYTES).unwrap_or(0);
        let plan = Plan::new(self.image, self.block_size, self.within.as_ref());
        let shared = Shared {
            pass: &self,
            visit,
            disk_len: self.image.disk_len(),
            supply: Mutex::new(Supply {
                plan,
                ahead: VecDeque::new(),
                ahead_count: ahead.max(threads + 1),
            }),
            order: Mutex::new(Order {
                next: 0,
                waiting: BTreeMap::new(),
                sink,
                failed: None,
            }),
            moved: Condvar::new(),
        };
        self.work.pool().in_place_scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|_| shared.work());
            }
        });
        let order = shared.order.into_inner();
        match order.unwrap_or_else(PoisonError::into_inner).failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl HashPass<'_> {
    /// How many threads read at once: no more than whose buffers memory is to hold.
    fn workers(&self) -> usize {
        let each = self.buffer_bytes().next_multiple_of(HUGE_PAGE_BYTES);
        let most = usize::try_from(BUFFERS_BYTES / each).unwrap_or(usize::MAX);
        self.work.pool().current_num_threads().min(most).max(1)
    }

    /// Bytes that one thread reads at a time: at most 16 MiB.
    fn buffer_bytes(&self) -> u64 {
        self.block_size.bytes().max(READ_BYTES)
    }
}

/// What the threads of one pass share.
struct Shared<'a> {
    pass: &'a HashPass<'a>,
    visit: &'a dyn Visit,
    disk_len: u64,
    supply: Mutex<Supply<'a>>,
    order: Mutex<Order<'a>>,
    /// Told when `Order::next` moves, or the pass has failed.
    moved: Condvar,
}

/// Units planned a little ahead, so that the system can read ahead too.
struct Supply<'a> {
    plan: Plan<'a>,
    ahead: VecDeque<Unit>,
    ahead_count: usize,
}

/// Puts finished units back in the order of the disk.
struct Order<'a> {
    /// The unit that the sink waits for.
    next: u64,
    waiting: BTreeMap<u64, Vec<Hashed>>,
    sink: &'a mut dyn Sink,
    /// The first error; once it is there, nothing more is done.
    failed: Option<Error>,
}

/// Blocks of a finished unit.
enum Hashed {
    Zeros(Range<u64>),
    Data(u64, Vec<Option<Hash>>),
}

impl<'a> Shared<'a> {
    /// Takes units until there are no more, or one has failed anywhere.
    fn work(&self) {
        let _bail = Bail(self);
        let mut buffer = AlignedBuf::new(self.pass.buffer_bytes() as usize);
        loop {
            let done = self.take().and_then(|unit| match unit {
                None => Ok(true),
                Some(unit) => {
                    let hashed = self.hash(&unit, &mut buffer)?;
                    self.emit(unit.number, hashed).map(|()| false)
                }
            });
            match done {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => return self.fail(error),
            }
        }
    }

    fn take(&self) -> Result<Option<Unit>> {
        if self.lock_order().failed.is_some() {
            return Ok(None);
        }
        let mut hints = Vec::new();
        let unit = {
            let mut supply = self.supply.lock().unwrap_or_else(PoisonError::into_inner);
            while supply.ahead.len() < supply.ahead_count {
                let Some(unit) = supply.plan.next(|| self.pass.work.cancel().check())? else {
                    break;
                };
                for part in &unit.parts {
                    if let Part::Data { pieces, .. } = part {
                        hints.extend(pieces.iter().cloned());
                    }
                }
                supply.ahead.push_back(unit);
            }
            supply.ahead.pop_front()
        };
        for hint in hints {
            self.pass.image.will_read(hint);
        }
        Ok(unit)
    }

    fn hash(&self, unit: &Unit, buffer: &mut AlignedBuf) -> Result<Vec<Hashed>> {
        let mut hashed = Vec::new();
        for part in &unit.parts {
            match part {
                Part::Zeros(blocks) => {
                    self.visit.zeros(blocks.clone())?;
                    self.advance(blocks);
                    hashed.push(Hashed::Zeros(blocks.clone()));
                }
                Part::Data { blocks, pieces } => {
                    let mut at = blocks.start;
                    while at < blocks.end {
                        let bytes = match self.pass.image.reads_from_memory() {
                            true => MEMORY_READ_BYTES,
                            false => READ_BYTES,
                        };
                        let step = (bytes / self.pass.block_size.bytes()).max(1);
                        let run = at..at.saturating_add(step).min(blocks.end);
                        at = run.end;
                        hashed.push(self.hash_run(run, pieces, buffer)?);
                    }
                }
            }
        }
        Ok(hashed)
    }

    /// Reads some blocks in one go and hashes those that are not zero.
    fn hash_run(
        &self,
        blocks: Range<u64>,
        pieces: &[Range<u64>],
        buffer: &mut AlignedBuf,
    ) -> Result<Hashed> {
        let block_size = self.pass.block_size;
        let start = block_size.range(blocks.start, self.disk_len).start;
        let end = block_size.range(blocks.end - 1, self.disk_len).end;
        // At most one block or `READ_BYTES`, whichever is more.
        let len = (end - start) as usize;
        let bytes = &mut buffer[..len];
        self.read(start..end, pieces, bytes)?;
        let hash = |block: &[u8]| (!is_zero(block)).then(|| Hash::of(block));
        let hashes: Vec<_> = blocks_of(bytes, block_size).map(hash).collect();
        self.visit.data(&HashedRun {
            first_block: blocks.start,
            block_size,
            bytes,
            hashes: &hashes,
        })?;
        self.advance(&blocks);
        Ok(Hashed::Data(blocks.start, hashes))
    }

    /// Fills `bytes` with the guest bytes of `range`: what lies outside `pieces` is zero.
    fn read(&self, range: Range<u64>, pieces: &[Range<u64>], bytes: &mut [u8]) -> Result<()> {
        let mut rest = bytes;
        let mut at = range.start;
        let first = pieces.partition_point(|piece| piece.end <= range.start);
        for piece in &pieces[first..] {
            let piece = piece.start.max(range.start)..piece.end.min(range.end);
            if piece.is_empty() {
                break;
            }
            // Lengths inside the buffer.
            let (gap, after) = rest.split_at_mut((piece.start - at) as usize);
            let (target, after) = after.split_at_mut((piece.end - piece.start) as usize);
            gap.fill(0);
            self.pass.work.admit(piece.end - piece.start)?;
            read_or_locate(self.pass.image, target, piece.start)?;
            rest = after;
            at = piece.end;
        }
        rest.fill(0);
        Ok(())
    }

    fn advance(&self, blocks: &Range<u64>) {
        let block_size = self.pass.block_size;
        let start = block_size.range(blocks.start, self.disk_len).start;
        let end = block_size.range(blocks.end - 1, self.disk_len).end;
        self.pass.work.progress().advance(end - start);
    }

    /// Gives the sink all units that are next, and waits while this one is too far ahead.
    fn emit(&self, number: u64, hashed: Vec<Hashed>) -> Result<()> {
        let mut order = self.lock_order();
        // The unit that the sink waits for never waits itself, so this ends.
        while number - order.next > MOST_AHEAD && order.failed.is_none() {
            order = self
                .moved
                .wait(order)
                .unwrap_or_else(PoisonError::into_inner);
        }
        order.waiting.insert(number, hashed);
        while order.failed.is_none() {
            let next = order.next;
            let Some(hashed) = order.waiting.remove(&next) else {
                break;
            };
            for part in hashed {
                match part {
                    Hashed::Zeros(blocks) => order.sink.zeros(blocks)?,
                    Hashed::Data(first_block, hashes) => order.sink.data(first_block, &hashes)?,
                }
            }
            order.next += 1;
            self.moved.notify_all();
        }
        Ok(())
    }

    fn fail(&self, error: Error) {
        self.lock_order().failed.get_or_insert(error);
        self.moved.notify_all();
    }

    fn lock_order(&self) -> MutexGuard<'_, Order<'a>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps threads from waiting for the unit of a thread that panics.
struct Bail<'s, 'a>(&'s Shared<'a>);

impl Drop for Bail<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = "a thread of this pass has panicked";
            self.0.fail(Error::new(ErrorKind::Io, message));
        }
    }
}

/// Reads, or says which guest byte cannot be read.
fn read_or_locate(image: &dyn Image, buf: &mut [u8], offset: u64) -> Result<()> {
    let Err(error) = image.read_exact_at(buf, offset) else {
        return Ok(());
    };
    if error.kind() != ErrorKind::Io {
        return Err(error.at_offset(offset));
    }
    // Read again in small steps: a medium fails by sectors, and the place is what helps.
    let mut at = offset;
    for piece in buf.chunks_mut(PAGE_BYTES as usize) {
        if let Err(cause) = image.read_exact_at(piece, at) {
            let error = Error::new(ErrorKind::Unreadable, "a range of the disk is unreadable");
            let error = match cause.path() {
                Some(path) => error.at_path(path),
                None => error,
            };
            return Err(error.during("read").at_offset(at).caused_by(cause));
        }
        at += piece.len() as u64;
    }
    Ok(())
}

fn blocks_of(bytes: &[u8], block_size: BlockSize) -> impl Iterator<Item = &[u8]> {
    // At most 16 MiB.
    bytes.chunks(block_size.bytes() as usize)
}

/// How much is read at once, from a medium and from memory: long enough for the one, and short
/// enough to be in a near cache when it is hashed for the other.
const READ_BYTES: u64 = 512 << 10;
const MEMORY_READ_BYTES: u64 = 64 << 10;

/// For the buffers of all threads.
const BUFFERS_BYTES: u64 = 64 << 20;
/// What a long buffer takes at least.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// How many finished units may wait for an earlier one.
const MOST_AHEAD: u64 = 64;
