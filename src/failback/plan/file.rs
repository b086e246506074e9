//! A plan as it stands in its file, before anything in it is trusted.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::SiteName;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    pub job: JobFile,
    pub primary: SiteFile,
    pub recovery: SiteFile,
    pub group: Vec<Spanned<GroupFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobFile {
    pub name: Spanned<String>,
    pub active: SiteName,
    pub mode: Option<Spanned<String>>,
    pub safety: Option<Spanned<String>>,
    pub proof: Option<Spanned<String>>,
    pub commit: Option<Spanned<String>>,
    pub commit_after: Option<Spanned<String>>,
    pub downtime_budget: Option<Spanned<String>>,
    pub max_passes: Option<Spanned<u32>>,
    pub pass_interval: Option<Spanned<String>>,
    pub keep_undo: Option<Spanned<bool>>,
    #[serde(default)]
    pub discard_baseline: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteFile {
    pub host: Spanned<String>,
    pub controller: Spanned<ControllerFile>,
    pub encryption: Option<Spanned<EncryptionFile>>,
    pub connect: Option<Spanned<ConnectFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectFile {
    pub rsh: Option<Spanned<String>>,
    pub remote_program: Option<Spanned<String>>,
    pub tls_cert: Option<Spanned<String>>,
    pub tls_key: Option<Spanned<String>>,
    pub tls_ca: Option<Spanned<String>>,
    pub tls_name: Option<Spanned<String>>,
    pub timeout: Option<Spanned<String>>,
    pub state: Option<Spanned<String>>,
    pub limit_rate: Option<Spanned<SizeFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EncryptionFile {
    pub identity: Option<Spanned<String>>,
    pub passphrase_file: Option<Spanned<String>>,
    pub directory: Option<Spanned<String>>,
    #[serde(default)]
    pub recipients: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControllerFile {
    pub kind: String,
    #[serde(default)]
    pub verbs: BTreeMap<Spanned<String>, Vec<String>>,
    pub program: Option<Vec<String>>,
    pub directory: Option<Spanned<String>>,
    pub start: Option<Vec<String>>,
    pub time_limit: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupFile {
    pub name: Spanned<String>,
    #[serde(default)]
    pub vm: Vec<Spanned<VmFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VmFile {
    pub name: Spanned<String>,
    #[serde(default)]
    pub networks: Vec<Spanned<String>>,
    #[serde(default)]
    pub create: bool,
    #[serde(default)]
    pub disk: Vec<Spanned<DiskFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiskFile {
    pub identity: Spanned<String>,
    pub bytes: Option<Spanned<SizeFile>>,
    pub primary: Spanned<String>,
    pub primary_format: Option<Spanned<String>>,
    pub recovery: Spanned<String>,
    pub recovery_format: Option<Spanned<String>>,
}

/// A size: a number, or text with a unit.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a size must be a number of bytes or text like \"64G\""
)]
pub(super) enum SizeFile {
    Bytes(u64),
    Text(String),
}

/// Reads the file's form; what its values mean is checked later.
pub(super) fn read(text: &str) -> Result<PlanFile> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let key = key_at(text, at);
        let message = error.message();
        let said = match key.is_empty() || message.contains(&key) {
            true => format!("line {}: {message}", line_of(text, at)),
            false => format!("line {}, key `{key}`: {message}", line_of(text, at)),
        };
        Error::new(ErrorKind::InvalidInput, said)
    })
}

/// The line, from 1 on, that a byte of a text stands in.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The key, or the table, of the line that a byte stands in.
fn key_at(text: &str, at: usize) -> String {
    let line = text.lines().nth(line_of(text, at) - 1).unwrap_or_default();
    let key = line.split(['=', '#']).next().unwrap_or_default();
    key.trim().trim_matches(['[', ']']).to_owned()
}
