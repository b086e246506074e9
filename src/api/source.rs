//! Opening a source, wherever it is.

#[cfg(feature = "failback")]
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageOptions;
use crate::limits::Limits;
use crate::location::{Location, NbdAddress, WebAddress};
use crate::manifest::Manifest;
#[cfg(feature = "failback")]
use crate::progress::CancelToken;
use crate::progress::Work;
use crate::remote::ConnectOptions;
use crate::storage::SourceOptions;
#[cfg(feature = "http")]
use crate::storage::WebStorage;
#[cfg(feature = "http")]
use crate::sync::WebSource;
#[cfg(all(feature = "failback", feature = "http"))]
use crate::sync::{ChangedSince, History};
use crate::sync::{HostSource, Source};

/// Opens the disk at `at` to be read: a file or device of this host, an export of an NBD server, or
/// an image on another host, which is the source of one sync.
///
/// # Errors
/// `Unsupported` for a location that this build has no way to reach, and for a format other than
/// raw of an export; `Incomplete` for an export that an unfinished sync left incomplete; those of
/// [`HostSource::open`], of connecting and of the agent.
pub fn open_source(
    at: &Location,
    image: &ImageOptions,
    options: &SourceOptions,
    connect: &ConnectOptions,
    work: &Work,
) -> Result<Source> {
    match at {
        Location::Path(path) => HostSource::open(path, image, options).map(|it| it.source()),
        Location::Nbd(address) => open_export(address, image, options, connect, work),
        Location::Web(address) => match &connect.via {
            None => open_web(address, image, options, connect, work),
            Some(agent) => {
                let client = connect.connect(agent, work)?;
                client.open_address(address, image, options, work)
            }
        },
        Location::Remote(address) => {
            let client = connect.connect(address, work)?;
            client.open(address.path(), image, options, work)
        }
    }
}

/// Opens the manifest at `at`, a file of this host or at a web server, of which only the rows that
/// are needed are fetched.
///
/// # Errors
/// Those of [`Manifest::open_with`] and of reaching the server; `InvalidInput` for other locations.
pub fn open_manifest(at: &Location, connect: &ConnectOptions, work: &Work) -> Result<Manifest> {
    match at {
        Location::Path(path) => Manifest::open_with(path, &Limits::default()),
        #[cfg(feature = "http")]
        Location::Web(address) => {
            let web = WebStorage::open(address, &connect.http, work.cancel())?;
            Manifest::from_storage(web.storage(), &Limits::default())
        }
        _ => {
            let what = "a manifest is a file of this host, or at a web server";
            let _ = (connect, work);
            Err(Error::new(ErrorKind::InvalidInput, what).at_path(at.to_string()))
        }
    }
}

/// What changed from one snapshot at a blob service to a later one, in guest bytes; `None` where
/// that is unknown.
///
/// # Errors
/// Those of opening the later one; `InvalidInput` for what is no snapshot there.
#[cfg(all(feature = "failback", feature = "http"))]
pub(crate) fn changes_between(
    newer: &Location,
    older: &str,
    cancel: &CancelToken,
) -> Result<Option<Vec<Range<u64>>>> {
    let older = &Location::parse_absolute(older)?;
    let (Location::Web(newer), Location::Web(older)) = (newer, older) else {
        let what = "changes are told between two snapshots at one web server";
        return Err(Error::new(ErrorKind::InvalidInput, what).at_path(newer.to_string()));
    };
    let (image, options, http) = Default::default();
    let source = WebSource::open(newer, &image, &options, &http, cancel)?;
    Ok(match source.changed_since(older, None, cancel)? {
        ChangedSince::Known(ranges) => Some(ranges),
        ChangedSince::Unknown(_) => None,
    })
}

#[cfg(all(feature = "failback", not(feature = "http")))]
pub(crate) fn changes_between(
    newer: &Location,
    _: &str,
    _: &CancelToken,
) -> Result<Option<Vec<Range<u64>>>> {
    let what = "this build cannot read disks at web servers (feature `http`)";
    Err(Error::new(ErrorKind::Unsupported, what).at_path(newer.to_string()))
}

#[cfg(feature = "http")]
fn open_web(
    address: &WebAddress,
    image: &ImageOptions,
    options: &SourceOptions,
    connect: &ConnectOptions,
    work: &Work,
) -> Result<Source> {
    WebSource::open(address, image, options, &connect.http, work.cancel()).map(|it| it.source())
}

#[cfg(not(feature = "http"))]
fn open_web(
    address: &WebAddress,
    _: &ImageOptions,
    _: &SourceOptions,
    _: &ConnectOptions,
    _: &Work,
) -> Result<Source> {
    let what = "this build cannot read disks at web servers (feature `http`)";
    Err(Error::new(ErrorKind::Unsupported, what).at_path(address.to_string()))
}

#[cfg(feature = "nbd")]
fn open_export(
    address: &NbdAddress,
    image: &ImageOptions,
    options: &SourceOptions,
    connect: &ConnectOptions,
    work: &Work,
) -> Result<Source> {
    use std::sync::Arc;

    use crate::image::Format;
    use crate::image::nbd::NbdExport;
    use crate::sync::Marker;

    if image.format.is_some_and(|format| format != Format::Raw) {
        let what = "an NBD export holds the bytes of a guest, and no container";
        return Err(Error::new(ErrorKind::Unsupported, what).at_path(address.to_string()));
    }
    let (secure, bitmap) = (secure(connect), address.bitmap());
    let export = NbdExport::open_secure(address, bitmap, secure, work.cancel())?;
    if !options.marker_is_data {
        Marker::refuse_image(&export).map_err(|error| error.at_path(address.to_string()))?;
    }
    let changes = match bitmap {
        Some(_) => Some(export.changed(work.cancel())?),
        None => None,
    };
    Ok(Source::new(Arc::new(export)).with_changes(changes))
}

/// How TLS is begun with a server.
#[cfg(all(feature = "nbd", feature = "tls"))]
fn secure(
    connect: &ConnectOptions,
) -> Option<std::sync::Arc<dyn crate::image::nbd::stream::Secure>> {
    let options = connect.tls.clone()?;
    Some(std::sync::Arc::new(options))
}

#[cfg(all(feature = "nbd", not(feature = "tls")))]
fn secure(_: &ConnectOptions) -> Option<std::sync::Arc<dyn crate::image::nbd::stream::Secure>> {
    None
}

#[cfg(not(feature = "nbd"))]
fn open_export(
    address: &NbdAddress,
    _: &ImageOptions,
    _: &SourceOptions,
    _: &ConnectOptions,
    _: &Work,
) -> Result<Source> {
    let what = "this build cannot read NBD exports (feature `nbd`)";
    Err(Error::new(ErrorKind::Unsupported, what).at_path(address.to_string()))
}
