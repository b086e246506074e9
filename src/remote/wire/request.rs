//! What the client wants, what the other one answers, and how it ends.

use super::codec::{Put, Take, choice, index_of, put_texts, take_texts, wrong};
use crate::error::Result;
use crate::image::{CreateFormat, Format, ImageInfo, Layout};
use crate::location::WebAddress;
use crate::storage::Allocation;
use crate::sync::{Cloning, Mode, Safety, SyncOptions, Verify};
use crate::units::BlockSize;

/// What the client wants of the other one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteJob {
    /// Where the other end's image lies there.
    pub path: Vec<u8>,
    /// Its format, where the path is not to choose it.
    pub format: Option<Format>,
    /// How to write to it; `None` where it is the source.
    pub target: Option<TargetJob>,
    /// Whether others may write to the source meanwhile: it is only looked at, and what is read
    /// of it is of no one moment.
    pub live: bool,
    /// Whether a marker of an unfinished sync at the beginning of the source was written by its
    /// guest.
    pub marker_is_data: bool,
    /// Whether the holes of the other end's file or device are read too; see
    /// [`ImageOptions::read_holes`](crate::image::ImageOptions::read_holes).
    pub read_holes: bool,
    /// What the agent is to open at a web server as the source, instead of a path.
    pub address: Option<WebAddress>,
}

/// How the other end is to write its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetJob {
    /// How changes are found.
    pub mode: Mode,
    /// What holds while the sync is under way.
    pub safety: Safety,
    /// What is read back.
    pub verify: Verify,
    /// How zeros are stored.
    pub allocation: Allocation,
    /// What a missing target is created as.
    pub create: Option<CreateFormat>,
    /// The target's length is rounded up to a multiple of this.
    pub align_bytes: u64,
    /// Blocks of roots.
    pub block_size: BlockSize,
    /// Whether a file may become shorter.
    pub allow_shrink: bool,
    /// Whether a device may be larger.
    pub allow_larger: bool,
    /// Whether only to look.
    pub dry_run: bool,
    /// Whether what the source cannot read is passed over.
    pub skip_unreadable: bool,
}

/// What a source is, as far as the target's end needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Length of the disk.
    pub disk_len: u64,
    /// The format.
    pub format: Format,
    /// Bytes a sector, where there are such.
    pub sector_bytes: Option<u64>,
    /// Bytes a block of the format, where there are such.
    pub block_bytes: Option<u64>,
    /// Dangers that are no errors.
    pub warnings: Vec<String>,
    /// Whether there is a manifest that may stand for reading it.
    pub has_manifest: bool,
}

impl RemoteJob {
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.text(&self.path);
        out.text(self.format.map_or("", Format::name).as_bytes());
        out.flag(self.target.is_some());
        let Some(target) = &self.target else {
            // An end without the features knows nothing of these bytes.
            let is_web = self.address.is_some();
            if self.live || self.marker_is_data || self.read_holes || is_web {
                out.flag(self.live);
            }
            if self.marker_is_data || self.read_holes || is_web {
                out.flag(self.marker_is_data);
            }
            if self.read_holes || is_web {
                out.flag(self.read_holes);
            }
            if let Some(address) = &self.address {
                out.text(address.with_secrets().as_bytes());
            }
            return;
        };
        out.byte(index_of(&MODES, &target.mode));
        out.byte(index_of(&SAFETIES, &target.safety));
        out.byte(index_of(&VERIFIES, &target.verify));
        out.byte(index_of(&ALLOCATIONS, &target.allocation));
        let create = target.create.map(|create| index_of(&CREATES, &create));
        out.byte(create.map_or(0, |index| index + 1));
        out.number(target.align_bytes);
        out.number(target.block_size.bytes());
        out.flag(target.allow_shrink);
        out.flag(target.allow_larger);
        out.flag(target.dry_run);
        // An end without the features knows nothing of these bytes.
        if target.skip_unreadable || self.read_holes {
            out.flag(target.skip_unreadable);
        }
        if self.read_holes {
            out.flag(true);
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<RemoteJob> {
        let path = from.text()?.to_vec();
        let format = match from.string()?.as_str() {
            "" => None,
            name => Some(Format::parse(name)?),
        };
        let target = match from.flag()? {
            true => Some(TargetJob::take(from)?),
            false => None,
        };
        let is_source = target.is_none();
        Ok(RemoteJob {
            live: is_source && !from.is_empty() && from.flag()?,
            marker_is_data: is_source && !from.is_empty() && from.flag()?,
            read_holes: !from.is_empty() && from.flag()?,
            address: match is_source && !from.is_empty() {
                true => Some(WebAddress::parse(from.string()?)?),
                false => None,
            },
            path,
            format,
            target,
        })
    }
}

impl TargetJob {
    fn take(from: &mut Take<'_>) -> Result<TargetJob> {
        Ok(TargetJob {
            mode: choice(&MODES, from.byte()?)?,
            safety: choice(&SAFETIES, from.byte()?)?,
            verify: choice(&VERIFIES, from.byte()?)?,
            allocation: choice(&ALLOCATIONS, from.byte()?)?,
            create: match from.byte()? {
                0 => None,
                index => Some(choice(&CREATES, index - 1)?),
            },
            align_bytes: from.number()?,
            block_size: BlockSize::new(from.number()?)?,
            allow_shrink: from.flag()?,
            allow_larger: from.flag()?,
            dry_run: from.flag()?,
            skip_unreadable: !from.is_empty() && from.flag()?,
        })
    }

    /// The same as options of a sync.
    pub fn sync_options(&self) -> SyncOptions {
        SyncOptions::default()
            .with_mode(self.mode)
            .with_safety(self.safety)
            .with_verify(self.verify)
            .with_block_size(self.block_size)
            .with_allow_shrink(self.allow_shrink)
            .with_allow_larger(self.allow_larger)
            .with_dry_run(self.dry_run)
            .with_skip_unreadable(self.skip_unreadable)
            // The report has no word for it.
            .with_cloning(Cloning::Never)
    }
}

impl Opened {
    /// The image that it describes.
    pub fn info(&self) -> ImageInfo {
        ImageInfo {
            format: self.format,
            layout: Layout::Flat,
            disk_bytes: self.disk_len,
            sector_bytes: self.sector_bytes,
            block_bytes: self.block_bytes,
            parents: Vec::new(),
            facts: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.disk_len);
        out.text(self.format.name().as_bytes());
        out.number(self.sector_bytes.unwrap_or(0));
        out.number(self.block_bytes.unwrap_or(0));
        put_texts(&self.warnings, out);
        // An end without the feature knows nothing of this byte.
        if self.has_manifest {
            out.flag(true);
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Opened> {
        let disk_len = from.number()?;
        if disk_len > i64::MAX as u64 {
            return Err(wrong("a disk longer than any"));
        }
        // A format that this build cannot read matters only where it is read.
        let format = Format::parse(&from.string()?).unwrap_or(Format::Raw);
        let some = |bytes| (bytes != 0).then_some(bytes);
        Ok(Opened {
            disk_len,
            format,
            sector_bytes: some(from.number()?),
            block_bytes: some(from.number()?),
            warnings: take_texts(from)?,
            has_manifest: !from.is_empty() && from.flag()?,
        })
    }
}

pub(super) const MODES: [Mode; 3] = [Mode::Auto, Mode::Delta, Mode::Full];
pub(super) const SAFETIES: [Safety; 2] = [Safety::Atomic, Safety::InPlace];
const VERIFIES: [Verify; 4] = [Verify::Written, Verify::All, Verify::None, Verify::Sent];
const ALLOCATIONS: [Allocation; 3] = [Allocation::Keep, Allocation::Sparse, Allocation::Full];
const CREATES: [CreateFormat; 5] = [
    CreateFormat::Raw,
    CreateFormat::VhdFixed,
    CreateFormat::VhdDynamic,
    CreateFormat::VhdxFixed,
    CreateFormat::VhdxDynamic,
];
