//! Options that several verbs share, and how their values are read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tls_args::TlsArgs;
use crate::api::{open_manifest, open_source};
use crate::duration::parse_duration;
use crate::image::{CreateFormat, FileGate, Format, ImageOptions};
use crate::manifest::Manifest;
use crate::remote::ConnectOptions;
#[cfg(feature = "http")]
use crate::storage::HttpOptions;
use crate::storage::{Allocation, SourceOptions, TargetOptions};
use crate::sync::{Cloning, HostSide, HostTargetOptions, Mode, Safety, Source, Verify};
use crate::units::parse_size;
use crate::{BlockSize, Error, ErrorKind, Location, WebAddress, Work};
use clap::Args;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};

/// Options of every verb.
#[derive(Args, Clone)]
#[command(next_help_heading = "Common options")]
pub(super) struct Common {
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Number of worker threads, at most 256 [0: one per core, at least four]
    #[arg(
        long,
        global = true,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub threads: usize,
    /// Limit the read rate per second; across hosts, the connection each way
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_size)]
    pub limit_rate: Option<u64>,
    /// Read and write past the page cache
    #[arg(long, global = true, hide_short_help = true)]
    pub direct: bool,
    /// Read a source that begins with the marker of an unfinished sync: its guest wrote it
    #[arg(long, global = true, hide_short_help = true)]
    pub marker_is_data: bool,
    #[cfg(feature = "http")]
    /// Read over http:// from other hosts too, without encryption
    #[arg(long, global = true, hide_short_help = true)]
    allow_http: bool,
    #[cfg(feature = "http")]
    /// Take a token from COMMAND, which is split at spaces, where a web server asks for one
    #[arg(long, global = true, hide_short_help = true, value_name = "COMMAND")]
    token_command: Option<String>,
}

impl Common {
    pub(super) fn source_options(&self) -> SourceOptions {
        SourceOptions::default()
            .with_direct(self.direct)
            .with_marker_is_data(self.marker_is_data)
    }

    /// How other hosts are reached, but for agents.
    pub(super) fn connect(&self) -> ConnectOptions {
        let connect = ConnectOptions::default();
        #[cfg(feature = "http")]
        let connect = {
            let words = |it: &String| it.split_whitespace().map(ToOwned::to_owned).collect();
            let http = HttpOptions::default()
                .with_allow_plain(self.allow_http)
                .with_token_command(self.token_command.as_ref().map(words));
            connect.with_http(http)
        };
        connect
    }

    /// Opens an image whose bytes this host reads itself.
    ///
    /// # Errors
    /// Those of [`open_source`].
    pub(super) fn open_source(
        &self,
        at: &Location,
        image: &ImageOptions,
        tls: &TlsArgs,
        work: &Work,
    ) -> Result<Source, Error> {
        let connect = tls.of(self.connect(), [at])?;
        open_source(at, image, &self.source_options(), &connect, work)
    }

    /// Opens a manifest.
    ///
    /// # Errors
    /// Those of [`open_manifest`].
    pub(super) fn open_manifest(&self, at: &Location, work: &Work) -> Result<Manifest, Error> {
        open_manifest(at, &self.connect(), work)
    }

    /// Opens an image or manifest.
    ///
    /// # Errors
    /// Those of [`HostSide::open`] and [`open_source`].
    pub(super) fn open_side(
        &self,
        at: &Location,
        format: Option<SideFormat>,
        parents: &Parents,
        holes: Holes,
        tls: &TlsArgs,
        work: &Work,
    ) -> Result<HostSide, Error> {
        let image = match format {
            Some(SideFormat::Image(format)) => parents.options(Some(format)),
            _ => parents.options(None),
        };
        let image = holes.of(image);
        let is_named_so = |it: &WebAddress| it.path().ends_with(".manifest");
        match (at, format) {
            (_, Some(SideFormat::Manifest)) => self.open_manifest(at, work).map(HostSide::Manifest),
            (Location::Web(address), None) if is_named_so(address) => {
                self.open_manifest(at, work).map(HostSide::Manifest)
            }
            (Location::Path(path), _) => HostSide::open(path, &image, &self.source_options()),
            _ => HostSide::of(self.open_source(at, &image, tls, work)?),
        }
    }
}

/// The parents of differencing images.
#[derive(Args, Default)]
pub(super) struct Parents {
    /// Use FILE as parent of a differencing image; may be repeated
    #[arg(long = "parent", value_name = "FILE", value_parser = here(), hide_short_help = true)]
    files: Vec<PathBuf>,
}

impl Parents {
    /// How an image of `format` is opened.
    pub(super) fn options(&self, format: Option<Format>) -> ImageOptions {
        let gate = self
            .files
            .iter()
            .fold(FileGate::new(), |gate, file| gate.with_parent(file.clone()));
        let options = ImageOptions::default().with_gate(Arc::new(gate));
        match format {
            Some(format) => options.with_format(format),
            None => options,
        }
    }
}

/// Whether holes are taken for zeros.
#[derive(Args, Clone, Copy, Default)]
pub(super) struct Holes {
    /// Read holes too, instead of taking them for zeros as the file system reports them
    #[arg(long, hide_short_help = true, help_heading = "Expert")]
    pub read_holes: bool,
}

impl Holes {
    /// `image`, with its holes read where that is asked for.
    pub(super) fn of(self, image: ImageOptions) -> ImageOptions {
        image.with_read_holes(self.read_holes)
    }
}

/// The one image of a verb.
#[derive(Args)]
pub(super) struct OneImage {
    /// Read the image as this format, whatever its name
    #[arg(long, alias = "source-format", value_name = "FORMAT", value_parser = format())]
    format: Option<Format>,
    #[command(flatten)]
    parents: Parents,
}

impl OneImage {
    pub(super) fn options(&self) -> ImageOptions {
        self.parents.options(self.format)
    }
}

/// How a target is opened, for verbs that change one without a source.
#[derive(Args)]
pub(super) struct TargetArgs {
    /// Write the target as this format, whatever its name
    #[arg(long, alias = "format", value_name = "FORMAT", value_parser = format())]
    target_format: Option<Format>,
    /// Directory of the redo log [next to a file, /var/lib/diskdelta for a device]
    #[arg(long, alias = "stage-dir", value_name = "DIR", value_parser = here())]
    #[arg(help_heading = "Space")]
    pub log_dir: Option<PathBuf>,
    /// Trust FILE, a log or copy of an unfinished sync, though its owner or mode does not show that
    /// diskdelta made it; you vouch for its contents
    #[arg(long, value_name = "FILE", value_parser = here(), hide_short_help = true)]
    #[arg(help_heading = "Expert")]
    trust_log: Vec<PathBuf>,
    /// How zeros are stored: like the target, sparse, or allocated
    #[arg(long, default_value = "keep", value_parser = allocation(), help_heading = "Space")]
    allocation: Allocation,
    #[command(flatten)]
    holes: Holes,
}

impl TargetArgs {
    pub(super) fn options(&self, common: &Common) -> HostTargetOptions {
        let open = TargetOptions::default()
            .with_direct(common.direct)
            .with_allocation(self.allocation);
        let image = self.holes.of(ImageOptions::default());
        HostTargetOptions::default()
            .with_image(match self.target_format {
                Some(format) => image.with_format(format),
                None => image,
            })
            .with_log_dir(self.log_dir.clone())
            .with_trusted(self.trust_log.clone())
            .with_open(open)
    }
}

/// What a side of a comparison is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SideFormat {
    Manifest,
    Image(Format),
}

pub(super) fn side_format() -> impl TypedValueParser<Value = SideFormat> {
    let names: Vec<_> = formats().chain(["manifest"]).collect();
    PossibleValuesParser::new(names).try_map(|name| match name.as_str() {
        "manifest" => Ok(SideFormat::Manifest),
        name => Format::parse(name).map(SideFormat::Image),
    })
}

/// Reads a block size.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn block_size(text: &str) -> Result<BlockSize, Error> {
    BlockSize::new(parse_size(text)?)
}

pub(super) fn format() -> impl TypedValueParser<Value = Format> {
    let names: Vec<_> = formats().collect();
    PossibleValuesParser::new(names).try_map(|name| Format::parse(&name))
}

fn formats() -> impl Iterator<Item = &'static str> {
    Format::ALL.iter().map(|format| format.name())
}

pub(super) fn create_format() -> impl TypedValueParser<Value = CreateFormat> {
    let all = [
        "raw",
        "vhd",
        "vhd-fixed",
        "vhd-dynamic",
        "vhdx",
        "vhdx-fixed",
        "vhdx-dynamic",
    ];
    names(all).try_map(|name| CreateFormat::parse(&name))
}

pub(super) fn allocation() -> impl TypedValueParser<Value = Allocation> {
    names(["keep", "sparse", "full"]).map(|name| match name.as_str() {
        "sparse" => Allocation::Sparse,
        "full" => Allocation::Full,
        _ => Allocation::Keep,
    })
}

pub(super) fn cloning() -> impl TypedValueParser<Value = Cloning> {
    names(["auto", "never"]).map(|name| match name.as_str() {
        "never" => Cloning::Never,
        _ => Cloning::Auto,
    })
}

pub(super) fn mode() -> impl TypedValueParser<Value = Mode> {
    names(["auto", "delta", "full"]).map(|name| match name.as_str() {
        "delta" => Mode::Delta,
        "full" => Mode::Full,
        _ => Mode::Auto,
    })
}

pub(super) fn safety() -> impl TypedValueParser<Value = Safety> {
    names(["atomic", "in-place"]).map(|name| match name.as_str() {
        "in-place" => Safety::InPlace,
        _ => Safety::Atomic,
    })
}

pub(super) fn verify() -> impl TypedValueParser<Value = Verify> {
    names(["written", "sent", "all", "none"]).map(|name| match name.as_str() {
        "all" => Verify::All,
        "sent" => Verify::Sent,
        "none" => Verify::None,
        _ => Verify::Written,
    })
}

/// Reads the path of a file or device of this host.
pub(super) fn here() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(Location::parse_here)
}

/// Reads the address of a disk at a web server.
#[cfg(feature = "http")]
pub(super) fn web_address() -> impl TypedValueParser<Value = WebAddress> {
    OsStringValueParser::new().try_map(Location::parse_web)
}

/// Reads where a disk is whose bytes this host reads itself.
pub(super) fn readable() -> impl TypedValueParser<Value = Location> {
    OsStringValueParser::new().try_map(Location::parse_readable)
}

/// Reads a path, or an address at another host.
pub(super) fn anywhere() -> impl TypedValueParser<Value = Location> {
    OsStringValueParser::new().try_map(Location::parse)
}

/// Reads how long an end of a line may be silent.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn timeout(text: &str) -> Result<Duration, Error> {
    match parse_duration(text)? {
        Duration::ZERO => Err(Error::new(
            ErrorKind::InvalidInput,
            "the timeout must be at least one second",
        )),
        timeout => Ok(timeout),
    }
}

fn names<const N: usize>(names: [&'static str; N]) -> PossibleValuesParser {
    PossibleValuesParser::new(names)
}
