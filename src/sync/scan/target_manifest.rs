//! The manifest that is kept of a target from one sync to the next.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::delta::JobId;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::manifest::{self, ManifestWriter, PreparedFile, Release, TargetManifest, refuse_other};
use crate::progress::Work;
use crate::storage::{Access, FileRef, SourceIdentity, Storage};
use crate::sync::endpoint::source::SyncContext;
use crate::sync::endpoint::target::Target;
use crate::units::BlockSize;

/// A target manifest, its successor while a sync runs, and the intent between them.
pub(in crate::sync) struct Keeper {
    file_ref: FileRef,
    kept: Option<TargetManifest>,
    next: PreparedFile,
    block_size: BlockSize,
}

impl Keeper {
    /// Opens the manifest that the options name; `None` where they name none. One that is not
    /// there, that is damaged, or whose target was changed by another program, is begun anew: then
    /// the target, `storage`, is read.
    ///
    /// # Errors
    /// `AlreadyExists` where something else lies there; `Untrusted` for a manifest that this
    /// program may not have made; `Io`, `NoSpace`, `LimitExceeded`.
    pub(crate) fn open(
        context: &SyncContext<'_>,
        storage: &dyn Storage,
        job: JobId,
    ) -> Result<Option<Keeper>> {
        let Some(file_ref) = context.options.target_manifest.clone() else {
            return Ok(None);
        };
        refuse_other(&file_ref)?;
        let unread = |why: &dyn std::fmt::Display| {
            let text = format!("{why}; the target is read instead");
            context.work.progress().note(&text);
            None
        };
        let kept = match open_target_manifest(&file_ref)? {
            None => None,
            Some(file) => match TargetManifest::open(file, context.limits()) {
                Err(error) if error.kind() == ErrorKind::Malformed => unread(&error),
                Err(error) => return Err(error),
                Ok(kept) if kept.describes(storage)? => Some(kept),
                Ok(_) => unread(&"the target was changed after its manifest was kept"),
            },
        };
        let next = manifest::begin_for(&file_ref, &job.to_string())?;
        let block_size = kept.as_ref().map_or(
            context.source.block_size_or(context.options.block_size),
            |kept| kept.manifest().block_size(),
        );
        let theirs = context.source.backend.block_size();
        if theirs.is_some_and(|theirs| theirs != block_size) {
            let what =
                "a target manifest of other blocks does not go with a source on another host";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .at_path(file_ref.path())
                .advise("begin one with blocks of 64K"));
        }
        Ok(Some(Keeper {
            kept,
            next,
            file_ref,
            block_size,
        }))
    }

    /// Where it is kept.
    pub(crate) fn file_ref(&self) -> &FileRef {
        &self.file_ref
    }

    /// What stands for reading a target of `disk_len` bytes, if anything does.
    pub(crate) fn trusted(&self, disk_len: u64) -> Option<&TargetManifest> {
        self.kept
            .as_ref()
            .filter(|kept| kept.manifest().disk_len() == disk_len)
    }

    /// Takes the manifest of the source.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn writer(&self, disk_len: u64) -> Result<ManifestWriter> {
        ManifestWriter::create(self.next.storage().clone(), disk_len, self.block_size)
    }

    /// Notes which source the manifest, which is written, is of.
    ///
    /// # Errors
    /// `Malformed`, `Io`, `NoSpace`.
    pub(crate) fn note_source(&self, context: &SyncContext<'_>) -> Result<()> {
        context.note_source(self.next.storage())
    }

    /// Makes the manifest of the source durable, its name too, so that a recovery can put it in
    /// place.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn make_durable(&self) -> Result<()> {
        self.next.make_durable()
    }

    /// Says durably that these ranges of the target are about to change, before they do.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn record_intent(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> Result<()> {
        // What this run trusts stays what it was when it began.
        self.kept
            .clone()
            .map_or(Ok(()), |mut kept| kept.record_intent(ranges))
    }

    /// Puts the successor in its place: the target, `storage`, is durable. Durable when it returns.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`.
    pub(crate) fn replace(&self, storage: &dyn Storage, limits: &Limits) -> Result<()> {
        self.next.commit_for(storage, limits)
    }
}

/// Which source the target manifest was made of, where that is recorded.
///
/// # Errors
/// `Untrusted` for a manifest that this program may not have made; `Io`, `LimitExceeded`.
pub(in crate::sync) fn recorded_source(
    file_ref: &FileRef,
    limits: &Limits,
) -> Result<Option<SourceIdentity>> {
    let Some(file) = open_target_manifest(file_ref)? else {
        return Ok(None);
    };
    match TargetManifest::open(file, limits) {
        Err(error) if error.kind() == ErrorKind::Malformed => Ok(None),
        kept => kept.map(|kept| kept.source()),
    }
}

/// Refuses the source whose signature states that it is older than what the target was made from,
/// or another image.
///
/// # Errors
/// `Untrusted`, also for a manifest that this program may not have made; `Io`, `LimitExceeded`.
pub(in crate::sync) fn refuse_older(context: &SyncContext<'_>) -> Result<()> {
    let release = context
        .source
        .signature
        .as_deref()
        .and_then(Release::stated_by);
    let (Some(release), Some(file_ref)) = (release, &context.options.target_manifest) else {
        return Ok(());
    };
    let Some(file) = open_target_manifest(file_ref)? else {
        return Ok(());
    };
    match TargetManifest::open(file, context.limits()) {
        Err(error) if error.kind() == ErrorKind::Malformed => Ok(()),
        kept => kept?
            .release()
            .map_or(Ok(()), |recorded| release.refuse_after(recorded)),
    }
}

/// Why the change map of the options, or what changed since a snapshot, cannot be used: its
/// omissions could not be found later, because nothing tells what the target, `storage`, holds now.
/// `None` where it can be used, where there is none, and where a change map is used and no manifest
/// is kept.
///
/// # Errors
/// `Untrusted` for a manifest that this program may not have made; `Io`, `LimitExceeded`.
pub(in crate::sync) fn doubt_of_map(
    context: &SyncContext<'_>,
    storage: &dyn Storage,
) -> Result<Option<&'static str>> {
    let options = context.options;
    if options.change_map.is_none() && options.since.is_none() {
        return Ok(None);
    }
    let Some(file_ref) = &options.target_manifest else {
        let is_believed = options.since.is_none() || options.trust_target;
        return Ok((!is_believed).then_some("no manifest is kept of the target"));
    };
    if context.source.image().is_none() {
        return Ok(Some("the source is on another host"));
    }
    let file = match file_ref
        .directory()
        .open_linked(file_ref.name(), Access::Read)
    {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Some("no manifest was kept of the target yet"));
        }
        file => file?,
    };
    let kept = match TargetManifest::open(file, context.limits()) {
        Err(error) if error.kind() == ErrorKind::Malformed => {
            return Ok(Some("the target manifest is damaged"));
        }
        kept => kept?,
    };
    let has_stamp = context.target.file_ref().is_some() && kept.is_noted();
    Ok(if !kept.describes(storage)? {
        Some("the target was changed after its manifest was kept")
    } else if !has_stamp && !options.trust_target {
        Some("nothing tells whether the target is as the last sync left it")
    } else {
        None
    })
}

/// Does for a recovered target, `storage`, what the sync would have done: `path` is what its job
/// recorded, and is trusted only in the target's directory or its log's, or where the caller named
/// it. Without a sound successor the intents stay, and their ranges are read the next time.
///
/// # Errors
/// `Io`, `NoSpace`, `Poisoned`.
pub(in crate::sync) fn replace_recovered(
    target: &Target,
    storage: &dyn Storage,
    path: &Path,
    job: JobId,
    work: &Work,
) -> Result<()> {
    let Some(file_ref) = target.file_ref_named(path)? else {
        // A log may come from elsewhere, and no file is written because it says so.
        let path = path.display();
        work.progress().note(&format!(
            "the target manifest {path} was not brought up to date, because it is in neither the \
             target's directory nor its log's; name it to have that done"
        ));
        return Ok(());
    };
    let limits = &target.image_options().limits;
    match manifest::commit_left(&file_ref, &job.to_string(), storage, limits) {
        Err(error) if error.kind() == ErrorKind::Malformed => Ok(()),
        done => done,
    }
}

/// Opens a target manifest, if it is there; failback gives one a second name.
fn open_target_manifest(file_ref: &FileRef) -> Result<Option<Arc<dyn Storage>>> {
    match file_ref
        .directory()
        .open_linked(file_ref.name(), Access::Write)
    {
        Ok(storage) => Ok(Some(storage)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
