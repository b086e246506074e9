//! New images.

use std::path::Path;

use super::{Format, vhd, vhdx};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// Makes empty storage an image that reads as zeros. Nothing is durable until the storage's
/// `sync`, and until its directory's where it is a new file.
///
/// Returns the disk's length: `disk_len` rounded up to whole sectors where the format has them,
/// and to the alignment.
///
/// # Errors
/// `AlreadyExists` for storage that is not empty; `InvalidInput` for an alignment or a block size
/// that makes no sense; `Unsupported` for a length that the format cannot have; `Io`, `NoSpace`.
pub fn create(storage: &dyn Storage, options: &CreateOptions) -> Result<u64> {
    if !storage.is_empty()? {
        return Err(Error::new(ErrorKind::AlreadyExists, "is not empty")
            .at_path(storage.path())
            .advise("remove it, or sync to it as it is"));
    }
    let disk_len = options.check()?;
    match options.format {
        CreateFormat::Raw => storage.set_len(disk_len)?,
        CreateFormat::VhdFixed => vhd::create_fixed(storage, disk_len)?,
        CreateFormat::VhdDynamic => {
            vhd::create_dynamic(storage, disk_len, options.vhd_block())?;
        }
        CreateFormat::VhdxFixed | CreateFormat::VhdxDynamic => {
            vhdx::create(storage, &options.vhdx_layout(disk_len))?;
        }
    }
    Ok(disk_len)
}

/// The kinds of image that can be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CreateFormat {
    /// Raw, a hole as a whole.
    Raw,
    /// VHD, the disk's bytes in order; what Azure takes.
    VhdFixed,
    /// VHD, growing by blocks.
    VhdDynamic,
    /// VHDX, all blocks in order.
    VhdxFixed,
    /// VHDX, growing by blocks.
    VhdxDynamic,
}

impl CreateFormat {
    /// Reads `raw`, `vhd-fixed`, `vhd-dynamic`, `vhdx-fixed`, `vhdx-dynamic`; `vhd` and `vhdx`
    /// mean dynamic.
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "raw" => CreateFormat::Raw,
            "vhd-fixed" => CreateFormat::VhdFixed,
            "vhd" | "vhd-dynamic" => CreateFormat::VhdDynamic,
            "vhdx-fixed" => CreateFormat::VhdxFixed,
            "vhdx" | "vhdx-dynamic" => CreateFormat::VhdxDynamic,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "`{text}` cannot be created; there are raw, vhd-fixed, vhd-dynamic, \
                         vhdx-fixed and vhdx-dynamic"
                    ),
                ));
            }
        })
    }

    /// What a path's extension asks for: the growing kind of its format, and raw for one that is
    /// only read.
    pub fn from_path(path: &Path) -> Self {
        CreateFormat::growing(Format::from_path(path))
    }

    /// The growing kind of a format, and raw for one that is only read.
    pub fn growing(format: Format) -> Self {
        match format {
            Format::Raw => CreateFormat::Raw,
            Format::Vhd => CreateFormat::VhdDynamic,
            Format::Vhdx => CreateFormat::VhdxDynamic,
            Format::Qcow2 | Format::Vmdk => CreateFormat::Raw,
        }
    }

    /// The format an image of this kind is opened as.
    pub fn format(self) -> Format {
        match self {
            CreateFormat::Raw => Format::Raw,
            CreateFormat::VhdFixed | CreateFormat::VhdDynamic => Format::Vhd,
            CreateFormat::VhdxFixed | CreateFormat::VhdxDynamic => Format::Vhdx,
        }
    }
}

/// What is to be created.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Format and kind.
    pub format: CreateFormat,
    /// Guest-visible length in bytes, before rounding.
    pub disk_len: u64,
    /// Guest bytes a block, where the format has blocks; by default what Windows takes.
    pub block_size: Option<u64>,
    /// Bytes a logical sector, where the format has a choice (VHDX: 512 or 4096); by default 512,
    /// and in a sync what the source has.
    pub sector_size: Option<u64>,
    /// The length is rounded up to a multiple of this power of two, for example 1 MiB for Azure.
    pub align: u64,
}

impl CreateOptions {
    /// An image of `format` and `disk_len` bytes.
    pub fn new(format: CreateFormat, disk_len: u64) -> Self {
        CreateOptions {
            format,
            disk_len,
            block_size: None,
            sector_size: None,
            align: 1,
        }
    }

    /// Replaces [`CreateOptions::block_size`].
    #[must_use]
    pub fn with_block_size(mut self, bytes: u64) -> Self {
        self.block_size = Some(bytes);
        self
    }

    /// Replaces [`CreateOptions::sector_size`].
    #[must_use]
    pub fn with_sector_size(mut self, bytes: u64) -> Self {
        self.sector_size = Some(bytes);
        self
    }

    /// Replaces [`CreateOptions::align`].
    #[must_use]
    pub fn with_align(mut self, bytes: u64) -> Self {
        self.align = bytes;
        self
    }

    /// Bytes a logical sector of the image created with these options, where the format has
    /// sectors.
    pub fn sector_bytes(&self) -> Option<u64> {
        match self.format.format() {
            Format::Raw => None,
            Format::Vhd => Some(512),
            Format::Qcow2 | Format::Vmdk => None,
            Format::Vhdx => Some(self.sector_size.unwrap_or(512)),
        }
    }

    /// Refuses what no image of the format can be; nothing is made. Returns the length that the
    /// image gets.
    ///
    /// # Errors
    /// `InvalidInput` for an alignment or a block size that makes no sense; `Unsupported` for a
    /// length that the format cannot have; `LimitExceeded` for too many blocks.
    pub fn check(&self) -> Result<u64> {
        let disk_len = self.rounded_len()?;
        match self.format {
            CreateFormat::Raw => {}
            CreateFormat::VhdFixed => vhd::check_fixed(disk_len)?,
            CreateFormat::VhdDynamic => {
                vhd::check_dynamic(disk_len, self.vhd_block()).map(drop)?;
            }
            CreateFormat::VhdxFixed | CreateFormat::VhdxDynamic => {
                self.vhdx_layout(disk_len).check()?;
            }
        }
        Ok(disk_len)
    }

    fn vhd_block(&self) -> u64 {
        self.block_size.unwrap_or(VHD_BLOCK_BYTES)
    }

    fn vhdx_layout(&self, disk_len: u64) -> vhdx::NewDisk {
        let layout = match self.format {
            CreateFormat::VhdxFixed => vhdx::NewDisk::fixed(disk_len),
            _ => vhdx::NewDisk::dynamic(disk_len),
        };
        let block = self.block_size.unwrap_or(layout.block_bytes);
        let sector = self.sector_size.unwrap_or(layout.sector_bytes);
        layout.with_block_bytes(block).with_sector_bytes(sector)
    }

    /// The length that an image created with these options gets.
    ///
    /// # Errors
    /// `InvalidInput` for an alignment that is no power of two, or a length beyond 2^64.
    pub fn rounded_len(&self) -> Result<u64> {
        let wrong = |message: String| Error::new(ErrorKind::InvalidInput, message);
        if !self.align.is_power_of_two() {
            return Err(wrong(format!(
                "an alignment of {} is no power of two",
                self.align
            )));
        }
        let sector = self.sector_bytes().unwrap_or(1).max(1);
        self.disk_len
            .checked_next_multiple_of(self.align.max(sector))
            .ok_or_else(|| wrong(format!("a disk of {} bytes is too long", self.disk_len)))
    }
}

/// The block of the specification and of Windows.
const VHD_BLOCK_BYTES: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn names_and_extensions_choose_what_is_created() {
        for (text, format) in [
            ("raw", CreateFormat::Raw),
            ("vhd", CreateFormat::VhdDynamic),
            ("vhd-fixed", CreateFormat::VhdFixed),
            ("vhd-dynamic", CreateFormat::VhdDynamic),
            ("vhdx", CreateFormat::VhdxDynamic),
            ("vhdx-fixed", CreateFormat::VhdxFixed),
            ("vhdx-dynamic", CreateFormat::VhdxDynamic),
        ] {
            assert_eq!(CreateFormat::parse(text).unwrap(), format);
        }
        assert!(CreateFormat::parse("qcow2").is_err());
        let path = Path::new("a.VHD");
        assert_eq!(CreateFormat::from_path(path), CreateFormat::VhdDynamic);
    }

    #[test]
    fn lengths_round_up_to_sectors_and_to_the_alignment() {
        let len = |format, len, align| {
            CreateOptions::new(format, len)
                .with_align(align)
                .rounded_len()
                .map_err(|e| e.kind())
        };
        assert_eq!(len(CreateFormat::Raw, 1001, 1), Ok(1001));
        assert_eq!(len(CreateFormat::VhdFixed, 1001, 1), Ok(1024));
        assert_eq!(len(CreateFormat::VhdFixed, 0, 1), Ok(0));
        assert_eq!(len(CreateFormat::VhdFixed, 1001, 1 << 20), Ok(1 << 20));
        let wrong = Err(ErrorKind::InvalidInput);
        assert_eq!(len(CreateFormat::Raw, 1, 3), wrong);
        assert_eq!(len(CreateFormat::Raw, 1, 0), wrong);
        assert_eq!(len(CreateFormat::VhdFixed, u64::MAX, 1), wrong);
    }

    #[test]
    fn what_holds_something_is_not_overwritten() {
        let storage = MemoryStorage::new("x", vec![1]);
        let options = CreateOptions::new(CreateFormat::Raw, 10);
        let kind = create(&storage, &options).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::AlreadyExists);
        assert_eq!(storage.to_vec(), [1]);
    }
}
