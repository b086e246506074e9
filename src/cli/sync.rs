//! `diskdelta sync`

use std::cell::OnceCell;

use super::context::Context;
use super::outcome::{Ended, Failure};
pub(crate) use super::sync_args::Args;
use super::sync_report::print_report;
use crate::api::{OpenTarget, open_manifest, open_source};
use crate::remote::{ConnectOptions, RemoteTarget};
use crate::sync::{CachedSource, HostSource, ManifestCache, Source, SyncReport};
use crate::{BlockSize, ChangeMap, Error, ErrorKind, Location, Result, Work};

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    refuse_misplaced(args)?;
    let all = [&args.source, &args.target];
    let connect = args.connect.options(all, context)?;
    let is_remote = all.iter().any(|it| matches!(it, Location::Remote(_)));
    let work = match is_remote || args.connect.via().is_some() {
        // The line is what a speed limit is for.
        true => context.work.clone().with_limit_rate(0),
        false => context.work.clone(),
    };
    // Standard input can be read once.
    let map = OnceCell::new();
    let attempt = || once(args, &map, &connect, context, &work);
    let retry = &connect.retry;
    let (report, warnings) = retry.run(&context.work, Failure::error, attempt)?;
    print_report(context, &report, &warnings)
}

/// One attempt, and the warnings.
fn once(
    args: &Args,
    map: &OnceCell<ChangeMap>,
    connect: &ConnectOptions,
    context: &Context,
    work: &Work,
) -> Result<(SyncReport, Vec<String>), Failure> {
    let (source, cached) = open(args, connect, context, work)?;
    context.warn(source.warnings());
    let map = match (&args.changes, source.changes()) {
        (None, None) => None,
        (None, Some(changes)) => {
            refuse_unchecked(args)?;
            Some(changes.to_vec())
        }
        (Some(_), Some(_)) => {
            let what = "--changes and a bitmap in the address of the source are two change maps";
            return Err(Error::new(ErrorKind::InvalidInput, what).into());
        }
        (Some(changes), None) => {
            if map.get().is_none() {
                // No other attempt runs beside this one.
                let _ = map.set(changes.read(source.disk_len())?);
            }
            map.get().map(|map| map.ranges().to_vec())
        }
    };
    let options = args.target_options(&source.files()?, &context.common);
    let mut target = OpenTarget::open(&args.target, &options, connect, work)?;
    context.warn(target.warnings());
    let warnings = [source.warnings(), target.warnings()].concat();
    let report = target
        .sync_from(
            &source,
            cached,
            &args.sync_options()?.with_change_map(map),
            work,
        )
        .map_err(|error| Failure::of_sync(&target, error))?;
    Ok((report, warnings))
}

/// Opens the source, and looks up what a cache knows of it.
fn open(
    args: &Args,
    connect: &ConnectOptions,
    context: &Context,
    work: &Work,
) -> Result<(Source, Option<CachedSource>)> {
    let (image, options) = (args.source_image(), context.common.source_options());
    // A dry run reads the source instead of making a directory or a manifest.
    let cache = args.manifest_cache.as_ref().filter(|_| !args.dry_run);
    if let (Location::Path(path), Some(cache)) = (&args.source, cache) {
        let block_size = match args.target {
            Location::Remote(_) => BlockSize::default(),
            _ => args.block_size,
        };
        let source = HostSource::open(path, &image, &options)?;
        let cached = ManifestCache::open(cache)?.look_up(&source, block_size)?;
        return Ok((source.source(), Some(cached)));
    }
    let source = open_source(&args.source, &image, &options, connect, work)?;
    Ok((with_source_manifest(source, args, connect, work)?, None))
}

/// Has the source be what its manifest states, where one is named.
fn with_source_manifest(
    source: Source,
    args: &Args,
    connect: &ConnectOptions,
    work: &Work,
) -> Result<Source> {
    let Some(at) = &args.source_manifest else {
        return Ok(source);
    };
    let manifest = open_manifest(at, connect, work)?;
    #[cfg(feature = "sign")]
    let signature = match &args.pubkey {
        Some(key) => {
            manifest.verify_signature(&public_key(key)?)?;
            manifest.signature()?
        }
        None => None,
    };
    #[cfg(not(feature = "sign"))]
    let signature = None;
    source.with_published(manifest, signature)
}

/// Reads a public key: a file's, or the text itself.
#[cfg(feature = "sign")]
fn public_key(key: &str) -> Result<crate::manifest::PublicKey> {
    use crate::manifest::PublicKey;
    match std::path::Path::new(key).exists() {
        true => PublicKey::open(key),
        false => PublicKey::parse(key),
    }
}

/// Refuses options that do not go with where source and target are.
fn refuse_misplaced(args: &Args) -> Result<()> {
    let refuse = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
    let has_cache = args.manifest_cache.is_some();
    if args.changes.is_some() || args.since().is_some() {
        refuse_unchecked(args)?;
    }
    if has_cache && args.source_manifest.is_some() {
        return refuse("--manifest-cache does not go with --source-manifest".to_owned());
    }
    let via = args.connect.via();
    match (&args.source, &args.target) {
        (Location::Web(_), Location::Remote(_)) if via.is_some() => {
            Err(RemoteTarget::both_remote())
        }
        (Location::Web(_), _) if via.is_some() => Ok(()),
        _ if via.is_some() => refuse("--via goes with a source at a web server alone".to_owned()),
        (Location::Remote(_), Location::Remote(_)) => Err(RemoteTarget::both_remote()),
        (Location::Remote(_), _) if has_cache => {
            let what = "--manifest-cache does not go with a source on another host";
            Err(Error::new(ErrorKind::InvalidInput, what)
                .advise("give it to the agent there: serve --manifest-cache"))
        }
        (Location::Nbd(_), _) if has_cache => {
            refuse("--manifest-cache does not go with an NBD export".to_owned())
        }
        (Location::Web(_), _) if has_cache => {
            refuse("--manifest-cache does not go with a disk at a web server".to_owned())
        }
        (_, Location::Remote(_)) => {
            let of_this_host = [
                (args.undo.is_some(), "--undo"),
                (args.target_manifest.is_some(), "--target-manifest"),
                (args.log_dir.is_some(), "--log-dir"),
                (args.hold, "--hold"),
                (args.changes.is_some(), "--changes"),
                (args.since().is_some(), "--since"),
                (args.source_manifest.is_some(), "--source-manifest"),
            ];
            match of_this_host.iter().find(|(is_given, _)| *is_given) {
                Some((_, option)) => refuse(format!(
                    "{option} does not go with a target on another host"
                )),
                None => Ok(()),
            }
        }
        _ if has_cache && args.target_manifest.is_none() => refuse(
            "--manifest-cache goes with --target-manifest, or a target on another host".to_owned(),
        ),
        _ => Ok(()),
    }
}

/// Refuses a change map whose omissions would not be found later.
fn refuse_unchecked(args: &Args) -> Result<()> {
    let is_remote = matches!(args.target, Location::Remote(_));
    if args.target_manifest.is_some() || args.trust_target || is_remote {
        return Ok(());
    }
    let what = "nothing would find later what the change map leaves out";
    Err(Error::new(ErrorKind::InvalidInput, what).advise(
        "keep a manifest of the target with --target-manifest FILE, or give --trust-target",
    ))
}
