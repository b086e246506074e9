//! Checksums that a service adds to what it answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::client::Answer;
use super::failure::Failure;
use crate::error::{Error, ErrorKind};

/// Which checksum is asked for with every range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Checksum {
    /// CRC-64/NVME.
    Crc64,
    Md5,
}

impl Checksum {
    /// The header that asks for it.
    pub(in crate::storage) fn request(self) -> (&'static str, String) {
        let name = match self {
            Checksum::Crc64 => "x-ms-range-get-content-crc64",
            Checksum::Md5 => "x-ms-range-get-content-md5",
        };
        (name, "true".to_owned())
    }

    /// The header that states it.
    pub(in crate::storage) fn name(self) -> &'static str {
        match self {
            Checksum::Crc64 => "x-ms-content-crc64",
            Checksum::Md5 => "content-md5",
        }
    }

    /// The checksum of `bytes`, as headers state it.
    pub(in crate::storage) fn of(self, bytes: &[u8]) -> String {
        match self {
            Checksum::Crc64 => {
                let mut digest = crc64fast_nvme::Digest::new();
                digest.write(bytes);
                STANDARD.encode(digest.sum64().to_le_bytes())
            }
            Checksum::Md5 => STANDARD.encode(<md5::Md5 as md5::Digest>::digest(bytes)),
        }
    }

    /// What the answer states.
    ///
    /// # Errors
    /// `Malformed` where it states nothing.
    pub(super) fn stated(self, answer: &Answer<'_>) -> Result<String, Failure> {
        answer
            .header(self.name())
            .map(ToOwned::to_owned)
            .ok_or_else(|| {
                let what = "the service leaves out the checksum that it was asked for";
                answer.refuse(ErrorKind::Malformed, what)
            })
    }

    /// Holds `bytes` against what was stated. Damage on the way passes.
    pub(super) fn check(self, bytes: &[u8], stated: &str) -> Result<(), Failure> {
        match self.of(bytes) == stated {
            true => Ok(()),
            false => Err(Failure::passing(Error::new(
                ErrorKind::Io,
                "the bytes do not have the checksum that the service states",
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_written_as_the_service_writes_them() {
        // The check values of both algorithms.
        assert_eq!(
            Checksum::Crc64.of(b"123456789"),
            STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_le_bytes())
        );
        assert_eq!(Checksum::Md5.of(b"123456789"), "JfnnlDI7RTiF9RgfG2JNCw==");
    }
}
