//! GUIDs as VHDX stores them: the first three fields little-endian.

use std::fmt;

use crate::error::Result;
use crate::random::random;

/// A GUID, kept in the byte order it has on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Guid([u8; 16]);

impl Guid {
    /// All zeros: "none" wherever a GUID is optional.
    pub const NIL: Guid = Guid([0; 16]);

    /// The GUID whose digits, read as one number, are `digits`.
    pub const fn from_digits(digits: u128) -> Self {
        Guid(swap(digits.to_be_bytes()))
    }

    /// A fresh random (version 4) GUID.
    ///
    /// # Errors
    /// `Io` when the system has no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes: [u8; 16] = random()?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Guid(swap(bytes)))
    }

    /// The digits, read as one number.
    pub const fn digits(self) -> u128 {
        u128::from_be_bytes(swap(self.0))
    }

    /// Takes 16 bytes as they lie on disk.
    pub const fn from_disk(bytes: [u8; 16]) -> Self {
        Guid(bytes)
    }

    /// The 16 bytes as they lie on disk.
    pub const fn to_disk(self) -> [u8; 16] {
        self.0
    }

    /// Reads hex digits in groups of 8-4-4-4-12, with or without braces, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}')?,
            None => text,
        };
        let groups: Vec<&str> = bare.split('-').collect();
        if !groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) {
            return None;
        }
        let digits = groups.concat();
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(&digits, 16)
            .ok()
            .map(Guid::from_digits)
    }

    /// Whether this is [`Guid::NIL`].
    pub fn is_nil(self) -> bool {
        self == Guid::NIL
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in swap(self.0).iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// Turns the first three fields around; its own inverse.
const fn swap(b: [u8; 16]) -> [u8; 16] {
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
        b[14], b[15],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_fields_are_little_endian_on_disk() {
        let guid = Guid::from_digits(0x2DC27766_F623_4200_9D64_115E9BFD4A08);
        assert_eq!(
            guid.to_disk(),
            [
                0x66, 0x77, 0xC2, 0x2D, 0x23, 0xF6, 0x00, 0x42, 0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD,
                0x4A, 0x08
            ]
        );
        assert_eq!(guid.to_string(), "2dc27766-f623-4200-9d64-115e9bfd4a08");
    }

    #[test]
    fn text_is_read_with_and_without_braces_in_either_case() {
        let guid = Guid::random().unwrap();
        assert_eq!(Guid::parse(&guid.to_string()), Some(guid));
        assert_eq!(
            Guid::parse(&format!("{{{guid}}}").to_uppercase()),
            Some(guid)
        );
        for wrong in [
            "",
            "{}",
            "{2dc27766-f623-4200-9d64-115e9bfd4a08",
            "2dc27766f62342009d64115e9bfd4a08",
            "+dc27766-f623-4200-9d64-115e9bfd4a08",
        ] {
            assert_eq!(Guid::parse(wrong), None, "{wrong}");
        }
    }
}
