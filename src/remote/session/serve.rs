//! The agent: does one job for the client.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::remote_source::RemoteSource;
use super::run::{Session, Side};
use super::source_server::SourceServer;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{FileGate, ImageOptions};
use crate::limits::Limits;
use crate::location::{UrlPrefix, WebAddress};
use crate::path_bytes::{bytes_of, path_of};
use crate::progress::Work;
use crate::remote::own_directories::OwnDirectories;
use crate::remote::sandbox::{Sandbox, SandboxPath};
use crate::remote::shown_paths::ShownPaths;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::connection::Line;
use crate::remote::wire::connection_options::LineOptions;
use crate::remote::wire::format::{BLOCK, FEATURE_DISK_AGENT, FEATURES};
use crate::remote::wire::message::Message;
use crate::remote::wire::outcome::{Fault, RemoteOutcome};
use crate::remote::wire::request::{RemoteJob, TargetJob};
use crate::setters::setters;
#[cfg(feature = "http")]
use crate::storage::HttpOptions;
use crate::storage::{SourceOptions, TargetOptions};
#[cfg(feature = "http")]
use crate::sync::WebSource;
use crate::sync::{
    CachedSource, HostSource, HostTarget, HostTargetOptions, ManifestCache, Source, sync,
};
use crate::target_state::TargetState;
use crate::units::BlockSize;

/// What an agent may do for its client.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The directory that all it touches must lie in, and that all paths are taken from. Paths that
    /// lead outside are refused with `InvalidInput`; a path that is looked up in it and is not
    /// there is `NotFound`, also one that exists outside.
    ///
    /// Where it may be written to, a client may make and overwrite any regular file in it, but for
    /// the agent's own.
    pub root: Option<PathBuf>,
    /// Whether nothing is ever written.
    pub read_only: bool,
    /// Where the redo logs of targets lie.
    pub log_dir: Option<PathBuf>,
    /// Where manifests are kept that stand for reading sources, and targets from one sync to the
    /// next; see `ManifestCache`.
    pub manifest_cache: Option<PathBuf>,
    /// Where the agent keeps what it has to remember of jobs on its disks, for failback;
    /// outside of the root. Made where it is missing; no other user may write to it.
    pub state_dir: Option<PathBuf>,
    /// Reads past the page cache.
    pub direct: bool,
    /// Reads the holes of images too, whether a job asks for it or not; see
    /// [`DiskOptions::read_holes`](crate::DiskOptions::read_holes).
    pub read_holes: bool,
    /// What the addresses of web servers begin with that a client may have opened as a source;
    /// none where it is empty.
    pub allowed_urls: Vec<UrlPrefix>,
    /// How web servers are reached.
    #[cfg(feature = "http")]
    pub http: HttpOptions,
    /// How the line is watched.
    pub line: LineOptions,
}

impl ServeOptions {
    /// The directories that are the agent's own, and that no job may name.
    pub(crate) fn own_directories(&self) -> impl Iterator<Item = &Path> {
        let named = [&self.state_dir, &self.log_dir, &self.manifest_cache];
        named.into_iter().flatten().map(PathBuf::as_path)
    }
}

setters! {
    ServeOptions:
    /// Replaces [`ServeOptions::root`].
    with_root, root: Option<PathBuf>;
    /// Replaces [`ServeOptions::read_only`].
    with_read_only, read_only: bool;
    /// Replaces [`ServeOptions::log_dir`].
    with_log_dir, log_dir: Option<PathBuf>;
    /// Replaces [`ServeOptions::manifest_cache`].
    with_manifest_cache, manifest_cache: Option<PathBuf>;
    /// Replaces [`ServeOptions::state_dir`].
    with_state_dir, state_dir: Option<PathBuf>;
    /// Replaces [`ServeOptions::direct`].
    with_direct, direct: bool;
    /// Replaces [`ServeOptions::read_holes`].
    with_read_holes, read_holes: bool;
    /// Replaces [`ServeOptions::allowed_urls`].
    with_allowed_urls, allowed_urls: Vec<UrlPrefix>;
    /// Replaces [`ServeOptions::line`].
    with_line, line: LineOptions;
}

#[cfg(feature = "http")]
setters! {
    ServeOptions:
    /// Replaces [`ServeOptions::http`].
    with_http, http: HttpOptions;
}

/// Does what an agent is asked for beside syncs; the layer above knows what that is.
pub trait DiskService: Sync {
    /// Does what `request` says, and tells the other end what came of it.
    ///
    /// # Errors
    /// `Io`, `Malformed`, `Cancelled`: the other end could not be reached.
    fn serve(
        &self,
        session: Session,
        request: &[u8],
        options: &ServeOptions,
        work: &Work,
    ) -> Result<Served>;
}

/// How a job ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Served {
    /// It is done.
    Done,
    /// It is not, and the other end was told why.
    Refused(Error),
}

/// Does one job for the client: is the source or the target of a sync.
///
/// What holds of a target when this returns is what [`Sync::run`](crate::Sync::run) says. Refused
/// are, among others, paths outside of the root, names of files that this crate makes next to
/// others, and paths in the agent's own directories (`InvalidInput`), and, where nothing may be
/// written, jobs that would (`Unsupported`).
///
/// # Errors
/// `Io`, `Malformed`, `Cancelled`: the other end could not be reached.
pub fn serve(
    reader: impl Read + Send + 'static,
    writer: impl Write + Send + 'static,
    options: &ServeOptions,
    work: &Work,
) -> Result<Served> {
    serve_told(reader, writer, options, work, None, &|_| {})
}

/// As [`serve`], and has `disk_service` do what is asked for beside syncs.
///
/// # Errors
/// As [`serve`].
pub fn serve_with(
    reader: impl Read + Send + 'static,
    writer: impl Write + Send + 'static,
    options: &ServeOptions,
    work: &Work,
    disk_service: &dyn DiskService,
) -> Result<Served> {
    serve_told(reader, writer, options, work, Some(disk_service), &|_| {})
}

/// As [`serve`]; `told` sees the job.
pub(in crate::remote) fn serve_told(
    reader: impl Read + Send + 'static,
    writer: impl Write + Send + 'static,
    options: &ServeOptions,
    work: &Work,
    disk_service: Option<&dyn DiskService>,
    told: &dyn Fn(&RemoteJob),
) -> Result<Served> {
    let line = options.line.clone().or_peer("the client");
    // A client knows what it wants.
    let idle = Some(line.silence.min(line.idle.unwrap_or(line.silence)));
    let line = Line::new(reader, writer, line.with_idle(idle))?;
    let features = match disk_service {
        Some(_) => FEATURES,
        None => FEATURES & !FEATURE_DISK_AGENT,
    };
    let mut session = Session::greet_with(line, Side::Agent, features, work.cancel())?;
    let shown = ShownPaths::below(options.root.as_deref());
    session.show_paths(shown.clone());
    let job = match session.line().receive("its job", work.cancel()) {
        Ok(Message::RemoteJob(job)) => *job,
        Ok(Message::Ask(request)) => {
            session.line().set_idle(options.line.idle);
            return match disk_service {
                None => refuse(session, wrong("something other than a job")),
                Some(_) if options.read_only => refuse(session, only_reads()),
                Some(disk_service) => disk_service.serve(session, &request, options, work),
            };
        }
        Ok(_) => return refuse(session, wrong("something other than a job")),
        Err(error) if error.kind() == ErrorKind::LimitExceeded => return refuse(session, error),
        Err(error) => return Err(error),
    };
    session.line().set_idle(options.line.idle);
    told(&job);
    let root = match options.root.as_ref().map(Sandbox::open).transpose() {
        Ok(root) => root,
        Err(error) => return refuse(session, error),
    };
    let agent = Agent {
        options,
        root,
        shown,
        work,
    };
    match job.target {
        None => agent.be_source(session, &job),
        Some(target) => agent.be_target(session, &job, &target),
    }
}

struct Agent<'a> {
    options: &'a ServeOptions,
    root: Option<Sandbox>,
    shown: ShownPaths,
    work: &'a Work,
}

impl Agent<'_> {
    fn be_source(&self, session: Session, job: &RemoteJob) -> Result<Served> {
        let opened = match &job.address {
            None => self.open_source(job),
            Some(address) => self.open_address(address, job).map(|source| (source, None)),
        };
        let opened = opened.and_then(|(source, cached)| {
            let image = source.readable()?.clone();
            Ok((source, image, cached))
        });
        let (source, image, cached) = match opened {
            Ok(opened) => opened,
            Err(error) => return refuse(session, error),
        };
        let source_server = SourceServer {
            image,
            check: &|| source.check(),
            warnings: source
                .warnings()
                .iter()
                .map(|it| self.shown.text(it))
                .collect(),
            cached,
        };
        match source_server.answer(&session, self.work) {
            Ok(_) => {
                session.finish();
                Ok(Served::Done)
            }
            Err(error) => refuse(session, error),
        }
    }

    fn be_target(&self, session: Session, job: &RemoteJob, how: &TargetJob) -> Result<Served> {
        let opened = self.open_target(job, how).and_then(|target| {
            let path = target.target().path();
            let kept = match self.cache()? {
                Some(cache) => Some(cache.target_place(bytes_of(&path))?),
                None => None,
            };
            Ok((target, how.sync_options().with_target_manifest(kept)))
        });
        let (target, options) = match opened {
            Ok(opened) => opened,
            Err(error) => return refuse(session, error.leaving(TargetState::Untouched)),
        };
        let remote = RemoteSource::open(session, &Limits::default(), self.work.cancel())?;
        let remote = Arc::new(remote);
        let source = Source::from_backend(remote.clone());
        let synced = sync(&source, target.target(), &options, self.work);
        let told = match &synced {
            Ok(report) => {
                let mut report = report.clone();
                report.notes.extend(target.warnings().iter().cloned());
                for text in report.notes.iter_mut().chain([&mut report.reason]) {
                    *text = self.shown.text(text);
                }
                Message::Complete(Some(Box::new(RemoteOutcome::of(&report))))
            }
            Err(error) => {
                // One that cannot be asked, as after a failed sync, may be incomplete.
                let marked = !matches!(target.marker(), Ok(None));
                Message::Fail(Box::new(Fault::shown(error, marked, &self.shown)))
            }
        };
        match (synced, remote.finish_with(&told)) {
            (Ok(_), Ok(_)) => Ok(Served::Done),
            (Err(error), Ok(_)) => Ok(Served::Refused(error)),
            (Ok(_), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }

    fn cache(&self) -> Result<Option<ManifestCache>> {
        let directory = self.options.manifest_cache.as_ref();
        directory.map(ManifestCache::open).transpose()
    }

    /// Opens a file or device, and looks up what a cache knows of it.
    fn open_source(&self, job: &RemoteJob) -> Result<(Source, Option<CachedSource>)> {
        let (path, resolved) = self.resolve(job)?;
        let open = SourceOptions::default()
            .with_direct(self.options.direct)
            .with_allow_writers(job.live)
            .with_marker_is_data(job.marker_is_data);
        let source = HostSource::open(&path, &self.image_options(job), &open)?;
        if let (Some(root), Some(resolved)) = (&self.root, resolved) {
            resolved.check()?;
            root.check(&source.files())?;
        }
        let cached = match self.cache()? {
            Some(cache) if !job.live => Some(cache.look_up(&source, BlockSize::new(BLOCK)?)?),
            _ => None,
        };
        Ok((source.source(), cached))
    }

    /// Opens what is at a web server, where the agent may.
    #[cfg(feature = "http")]
    fn open_address(&self, address: &WebAddress, job: &RemoteJob) -> Result<Source> {
        if self.options.allowed_urls.is_empty() {
            let what = "this agent opens no addresses of web servers";
            return Err(Error::new(ErrorKind::Unsupported, what).advise(Advice::ServeAddresses));
        }
        let allowed = Some(self.options.allowed_urls.clone());
        let http = self.options.http.clone().with_allowed(allowed);
        let open = SourceOptions::default().with_marker_is_data(job.marker_is_data);
        let cancel = self.work.cancel();
        WebSource::open(address, &self.image_options(job), &open, &http, cancel)
            .map(|web| web.source())
    }

    #[cfg(not(feature = "http"))]
    fn open_address(&self, _: &WebAddress, _: &RemoteJob) -> Result<Source> {
        let what = "this agent was built without disks at web servers (feature `http`)";
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    fn open_target(&self, job: &RemoteJob, how: &TargetJob) -> Result<HostTarget> {
        if self.options.read_only {
            return Err(only_reads());
        }
        let (path, resolved) = self.resolve(job)?;
        let open = TargetOptions::default()
            .with_direct(self.options.direct)
            .with_allocation(how.allocation);
        let options = HostTargetOptions::default()
            .with_image(self.image_options(job))
            .with_create(how.create)
            .with_align_bytes(how.align_bytes.max(1))
            .with_log_dir(self.options.log_dir.clone())
            .with_dry_run(how.dry_run)
            .with_open(open);
        let target = HostTarget::open(&path, &options)?;
        resolved.map_or(Ok(()), |resolved| resolved.check())?;
        Ok(target)
    }

    fn image_options(&self, job: &RemoteJob) -> ImageOptions {
        let options = ImageOptions::default()
            .with_gate(Arc::new(FileGate::new()))
            .with_read_holes(self.options.read_holes || job.read_holes);
        match job.format {
            Some(format) => options.with_format(format),
            None => options,
        }
    }

    fn resolve(&self, job: &RemoteJob) -> Result<(PathBuf, Option<SandboxPath>)> {
        let asked = path_of(without_slash(&job.path));
        let (path, resolved) = match &self.root {
            None => (asked.into_owned(), None),
            Some(root) => {
                let resolved = root.resolve(without_slash(&job.path))?;
                (resolved.path.clone(), Some(resolved))
            }
        };
        OwnDirectories::of(self.options.own_directories())?.refuse(&path)?;
        Ok((path, resolved))
    }
}

/// The path of an address: behind `ssh://host/C:/web.vhd` it is `C:/web.vhd` on Windows.
fn without_slash(path: &[u8]) -> &[u8] {
    match path {
        [b'/', rest @ ..] if cfg!(windows) && matches!(rest, [_, b':', ..]) => rest,
        _ => path,
    }
}

fn only_reads() -> Error {
    Error::new(ErrorKind::Unsupported, "this agent only reads").advise(Advice::ServeWritable)
}

/// Tells the other end.
pub(crate) fn refuse(session: Session, error: Error) -> Result<Served> {
    let fault = Fault::shown(&error, false, session.shown_paths());
    let told = session.line().send(&Message::Fail(Box::new(fault)));
    session.finish();
    match told {
        Ok(()) => Ok(Served::Refused(error)),
        Err(_) => Err(error),
    }
}
