//! Opening a target, wherever it is.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::progress::Work;
use crate::remote::{Client, ConnectOptions, RemoteTarget};
#[cfg(feature = "http")]
use crate::sync::open_blob;
use crate::sync::{
    CachedSource, HostTarget, HostTargetOptions, Source, SyncOptions, SyncReport, sync,
};

/// Opens a target that this host writes itself: a file or device of it, or a page blob.
///
/// # Errors
/// `InvalidInput` for a location that is only read; `Unsupported` for one of an agent; those of
/// [`HostTarget::open`] and of the blob service.
pub(crate) fn open_host_target(
    at: &Location,
    options: &HostTargetOptions,
    connect: &ConnectOptions,
    work: &Work,
) -> Result<HostTarget> {
    let (kind, what) = match at {
        Location::Path(path) => return HostTarget::open(path, options),
        #[cfg(feature = "http")]
        Location::Web(address) => {
            return open_blob(address, options, &connect.http, work.cancel());
        }
        #[cfg(not(feature = "http"))]
        Location::Web(_) => {
            let what = "this build cannot write to a web server";
            (ErrorKind::Unsupported, what)
        }
        Location::Nbd(_) => {
            let what = "an export of an NBD server is only read";
            (ErrorKind::InvalidInput, what)
        }
        Location::Remote(_) => {
            let what = "this is done on the host of the target";
            (ErrorKind::Unsupported, what)
        }
    };
    let _ = (connect, work);
    Err(Error::new(kind, what).at_path(at.to_string()))
}

/// An open target of one sync: on this host, or on another one, whose agent writes it.
pub struct OpenTarget(Kind);

opaque!(OpenTarget);

enum Kind {
    Here(HostTarget),
    Remote(RemoteTarget),
}

impl OpenTarget {
    /// Opens the target at `at`, or prepares for creating it.
    ///
    /// # Errors
    /// `InvalidInput` for a location that is only read; those of [`HostTarget::open`] and of
    /// connecting.
    pub fn open(
        at: &Location,
        options: &HostTargetOptions,
        connect: &ConnectOptions,
        work: &Work,
    ) -> Result<OpenTarget> {
        let kind = match at {
            Location::Path(_) => Kind::Here(open_host_target(at, options, connect, work)?),
            Location::Remote(address) => {
                let client = connect.connect(address, work)?;
                Kind::Remote(client.target(address.path(), options))
            }
            Location::Nbd(_) | Location::Web(_) => {
                Kind::Here(open_host_target(at, options, connect, work)?)
            }
        };
        Ok(OpenTarget(kind))
    }

    /// The target at `path` of the agent that `client` is connected to, if it is not used yet.
    ///
    /// # Errors
    /// `InvalidInput` for a connection that was used.
    pub(super) fn over(
        client: Option<Client>,
        path: &Path,
        options: &HostTargetOptions,
    ) -> Result<OpenTarget> {
        let client = client.ok_or_else(RemoteTarget::used)?;
        Ok(OpenTarget(Kind::Remote(client.target(path, options))))
    }

    /// Makes the target hold what `source` holds, as [`sync`] does, promises and all. `cached` is
    /// what a cache knows of the source.
    ///
    /// # Errors
    /// Those of [`sync`] and of [`RemoteTarget::sync_from`].
    pub fn sync_from(
        &mut self,
        source: &Source,
        cached: Option<CachedSource>,
        options: &SyncOptions,
        work: &Work,
    ) -> Result<SyncReport> {
        match (&mut self.0, cached) {
            (Kind::Remote(target), cached) => target.sync_from(source, cached, options, work),
            (Kind::Here(target), None) => sync(source, target.target(), options, work),
            (Kind::Here(target), Some(cached)) => {
                let (manifest, _) = cached.manifest_or_read(None, work)?;
                let source = source.clone().with_manifest(manifest);
                sync(&source, target.target(), options, work)
            }
        }
    }

    /// The target, where it is on this host.
    pub(super) fn host(&self) -> Option<&HostTarget> {
        match &self.0 {
            Kind::Here(target) => Some(target),
            Kind::Remote(_) => None,
        }
    }

    /// Dangers that are no errors; those of a target on another host are in the report's notes.
    pub fn warnings(&self) -> &[String] {
        match &self.0 {
            Kind::Here(target) => target.warnings(),
            Kind::Remote(_) => &[],
        }
    }

    /// Whether the target is incomplete, as after a failed sync, or may be. For a target on another
    /// host the kind of the error says so.
    pub fn may_be_incomplete(&self) -> bool {
        match &self.0 {
            Kind::Here(target) => !matches!(target.marker(), Ok(None)),
            Kind::Remote(_) => false,
        }
    }
}
