//! The lease of a page blob that is written.

use std::sync::Arc;

use super::writer::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::location::WebAddress;
use crate::progress::CancelToken;
use crate::random::random;
use crate::storage::http::HttpOptions;
use crate::storage::{Access, FileRef, Privacy, Storage};

/// A lease without an end: nothing else writes to the blob until it is given back, also after a
/// crash. Its id is kept in a local file, which is locked meanwhile, so that the next run here
/// takes the lease over.
pub(super) struct Lease {
    id: String,
    file_ref: FileRef,
    /// Locked as long as it is open.
    _file: Arc<dyn Storage>,
    address: WebAddress,
    options: HttpOptions,
}

impl Lease {
    /// Takes the lease of the blob that `writer` writes, which states it from then on.
    ///
    /// # Errors
    /// `InUse` where another run, here or elsewhere, has it; those of the service and of the file.
    pub(super) fn take(
        writer: &Writer,
        file_ref: &FileRef,
        address: &WebAddress,
        options: &HttpOptions,
    ) -> Result<Self> {
        let (file, id) = match file_ref.open_own_if_there(Access::Write)? {
            Some(file) => {
                let mut id = [0; ID_BYTES];
                let is_whole = file.len()? == ID_BYTES as u64;
                if is_whole {
                    file.read_exact_at(&mut id, 0)?;
                }
                let id = String::from_utf8(id.to_vec()).ok();
                let id = id.filter(|id| is_whole && is_id(id));
                // A crash has cut it short before the lease was asked for.
                let id = id.map_or_else(new_id, Ok)?;
                (file, id)
            }
            None => (file_ref.create(Privacy::PRIVATE)?, new_id()?),
        };
        // Known here before the service knows it.
        file.write_all_at(id.as_bytes(), 0)?;
        file.set_len(ID_BYTES as u64)?;
        file.sync()?;
        file_ref.directory().sync()?;
        writer.acquire(&id).inspect_err(|error| {
            if error.kind() == ErrorKind::InUse {
                // It is not ours to take over.
                let _ = file_ref.remove_if_there();
            }
        })?;
        Ok(Lease {
            id,
            file_ref: file_ref.clone(),
            _file: file,
            address: address.clone(),
            options: options.clone(),
        })
    }

    fn release(&self) -> Result<()> {
        // Also after a cancel, and not for long: the next run here takes it over.
        let options = self.options.clone().with_attempts(2);
        let options = options.with_silence(self.options.silence.min(RELEASE_SILENCE));
        Writer::new(&self.address, &options, &CancelToken::new())?.release(&self.id)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.release().is_ok() {
            let _ = self.file_ref.remove_if_there();
        }
    }
}

/// A new id, written as the service wants it.
fn new_id() -> Result<String> {
    let digits: String = random::<16>()?
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect();
    let mut id = String::with_capacity(ID_BYTES);
    for (index, digit) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            id.push('-');
        }
        id.push(digit);
    }
    match is_id(&id) {
        true => Ok(id),
        false => Err(Error::new(ErrorKind::Io, "cannot make an id for a lease")),
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// 32 digits in five groups.
const ID_BYTES: usize = 36;
const RELEASE_SILENCE: std::time::Duration = std::time::Duration::from_secs(10);
