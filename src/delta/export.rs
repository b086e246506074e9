//! A delta as a differencing image: what a hypervisor opens over its base, and merges.

use std::fmt;
use std::sync::Arc;

use super::{Delta, FrameKind, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Format, ImageOptions, NewChild, ParentGate, ParentRequest};
use crate::manifest::root_of;
use crate::progress::{Phase, Work};
use crate::storage::Storage;

/// The image that a child is made over.
#[derive(Clone)]
#[non_exhaustive]
pub struct ExportBase {
    /// Its file.
    pub storage: Arc<dyn Storage>,
    /// Its format, and the child's.
    pub format: Format,
    /// Where the file lies as seen from the child's directory, with backslashes.
    pub path: String,
    /// How it is opened.
    pub options: ImageOptions,
}

opaque!(ExportBase);

impl ExportBase {
    /// The image of `format` in `storage`, which its child names `path`.
    pub fn new(storage: Arc<dyn Storage>, format: Format, path: impl Into<String>) -> Self {
        ExportBase {
            storage,
            format,
            path: path.into(),
            options: ImageOptions::default(),
        }
    }

    /// Replaces [`ExportBase::options`].
    #[must_use]
    pub fn with_options(mut self, options: ImageOptions) -> Self {
        self.options = options;
        self
    }
}

/// Makes empty storage a differencing image of `base` that holds what `delta` leads to.
///
/// All of the base is read first, and must be what the delta was made from; all of the child is
/// read afterwards, and must be the delta's result. The child stands for the base as it is now:
/// once the base changes, the child is worth nothing. Durable when it returns, but for the file's
/// name.
///
/// # Errors
/// `BaseMismatch` for another base, or a delta without roots; `Unsupported` for a base that can
/// have no child and for a delta that changes the disk's length; `Malformed` for a damaged delta;
/// `VerifyFailed`; `AlreadyExists` for storage that is not empty; those of opening the base; `Io`,
/// `NoSpace`, `Cancelled`.
pub fn export(
    delta: &Delta,
    base: &ExportBase,
    child: Arc<dyn Storage>,
    work: &Work,
) -> Result<()> {
    delta.require(Purpose::Portable)?;
    NewChild::check_format(base.format).map_err(|e| e.at_path(base.storage.path()))?;
    let (header, trailer) = (delta.header(), delta.trailer());
    if header.base_len != header.result_len {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the delta makes {} bytes of {}, and a child has its parent's length",
                header.result_len, header.base_len
            ),
        )
        .advise("apply the delta to a copy of the base instead"));
    }
    delta.verify(work, &|_| Ok(()))?;
    let (base_root, result_root) = match (trailer.base_root, trailer.result_root) {
        (Some(base), Some(result)) => (base, result),
        _ => return Err(other_base("the delta does not name the root of its base")),
    };
    let options = base.options.clone().with_gate(Arc::new(Over {
        base: base.storage.clone(),
        gate: base.options.gate.clone(),
    }));
    let image = image::open_storage(base.storage.clone(), base.format, &options)?;
    if image.disk_len() != header.base_len
        || root_of(&*image, header.block_size, work)? != base_root
    {
        return Err(
            other_base("the base is not what the delta was made from").at_path(base.storage.path())
        );
    }
    let new = NewChild::create(
        child.clone(),
        base.storage.clone(),
        &base.path,
        base.format,
        &options,
    )?;
    work.progress().begin(Phase::Apply, None);
    delta.for_each(work, &|frame| {
        work.cancel().check()?;
        let offset = frame.offset();
        match frame.header().kind {
            FrameKind::Zero => new.write_zeroes_at(offset..offset + frame.header().len),
            _ => new.write_all_at(frame.bytes(), offset),
        }
    })?;
    new.finish()?;
    let made = image::open_storage(child.clone(), base.format, &options)?;
    if root_of(&*made, header.block_size, work)? != result_root {
        return Err(Error::new(
            ErrorKind::VerifyFailed,
            "the child does not read as the delta's result",
        )
        .at_path(child.path()));
    }
    Ok(())
}

fn other_base(what: &'static str) -> Error {
    Error::new(ErrorKind::BaseMismatch, what)
        .advise("nothing was made; name the image that the delta was made from")
}

/// Offers the base to its child, and to the base what the caller offers.
struct Over {
    base: Arc<dyn Storage>,
    gate: Arc<dyn ParentGate>,
}

impl ParentGate for Over {
    fn candidates(&self, request: &ParentRequest<'_>) -> Result<Vec<Arc<dyn Storage>>> {
        if request.child == self.base.path() {
            return self.gate.candidates(request);
        }
        let mut files = vec![self.base.clone()];
        // What lies below the base's parent is asked for here, too.
        files.extend(self.gate.candidates(request).unwrap_or_default());
        Ok(files)
    }
}

impl fmt::Debug for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {:?}", self.base.path().display(), self.gate)
    }
}
