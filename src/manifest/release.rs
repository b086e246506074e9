//! What the signature of a manifest states beyond the manifest.

#[cfg(feature = "sign")]
use super::read::Manifest;
use crate::error::{Error, ErrorKind, Result};

/// Which edition of which image a signed manifest is of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Release {
    /// The name of the image, which all its editions have.
    pub name: String,
    /// Counts the editions up: a target never goes back to a lower one.
    pub serial: u64,
}

impl Release {
    /// An edition of the image `name`.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is empty, longer than 128 bytes, or has control characters.
    pub fn new(name: impl Into<String>, serial: u64) -> Result<Self> {
        let name = name.into();
        if name.is_empty() || name.len() > MOST_NAME_BYTES || name.chars().any(char::is_control) {
            let what = "the name of an image has 1 to 128 bytes and no control characters";
            return Err(Error::new(ErrorKind::InvalidInput, what));
        }
        Ok(Release { name, serial })
    }

    /// The text that is signed.
    #[cfg(feature = "sign")]
    pub(crate) fn statement(&self, manifest: &Manifest) -> String {
        format!(
            "diskdelta manifest 1\nroot {}\nlength {}\nblock-size {}\nserial {}\nname {}\n",
            manifest.root(),
            manifest.disk_len(),
            manifest.block_size().bytes(),
            self.serial,
            self.name,
        )
    }

    /// The comment that is signed too, by which a reader learns of the edition.
    #[cfg(feature = "sign")]
    pub(crate) fn comment(&self) -> String {
        format!("serial:{} name:{}", self.serial, self.name)
    }

    /// What a signature states, which is not checked here.
    pub(crate) fn stated_by(signature: &str) -> Option<Self> {
        let comment = signature
            .lines()
            .nth(2)?
            .strip_prefix("trusted comment: ")?;
        let (serial, name) = comment.strip_prefix("serial:")?.split_once(" name:")?;
        Release::new(name, serial.parse().ok()?).ok()
    }

    /// Refuses this edition for a target that was made from `recorded`.
    ///
    /// # Errors
    /// `Untrusted` for another image, and for an earlier edition.
    pub(crate) fn refuse_after(&self, recorded: &Release) -> Result<()> {
        let what = match self.name == recorded.name {
            false => format!(
                "the target was made from the image `{}`, and this is `{}`",
                recorded.name, self.name
            ),
            true if self.serial < recorded.serial => format!(
                "the target has serial {} of the image `{}`, and this is the older serial {}",
                recorded.serial, self.name, self.serial
            ),
            true => return Ok(()),
        };
        Err(Error::new(ErrorKind::Untrusted, what)
            .advise("remove the target manifest, if the target is to be made from it all the same"))
    }
}

const MOST_NAME_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_from_its_comment_and_nothing_else() {
        let release = Release::new("web: a b", 7).unwrap();
        let text =
            |comment: &str| format!("untrusted comment: x\nAA\ntrusted comment: {comment}\nBB\n");
        assert_eq!(
            Release::stated_by(&text(&release.comment())),
            Some(release.clone())
        );
        for wrong in [
            "serial:x name:a",
            "serial:1",
            "serial:1 name:",
            "timestamp:1",
            "",
        ] {
            assert_eq!(Release::stated_by(&text(wrong)), None, "{wrong}");
        }
        assert_eq!(Release::stated_by(""), None);
        for wrong in ["", "a\nb", &"a".repeat(129)] {
            assert!(Release::new(wrong, 1).is_err());
        }
        let older = Release::new("web: a b", 6).unwrap();
        let other = Release::new("db", 9).unwrap();
        assert!(release.refuse_after(&older).is_ok() && release.refuse_after(&release).is_ok());
        assert!(older.refuse_after(&release).is_err() && other.refuse_after(&release).is_err());
    }
}
