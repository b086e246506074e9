//! A plan as it stands in its file: each value makes sense by itself.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::types::SiteName;
use super::values::{
    As, At, DiskBytes, Filled, HostPath, Length, ModeFile, Name, Passes, Patience, SafetyFile, Size,
};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{CommitPolicy, ProofPolicy};
use crate::sync::Safety;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    pub job: JobFile,
    pub primary: SiteFile,
    pub recovery: SiteFile,
    pub hooks: Option<HooksFile>,
    pub group: Vec<Spanned<GroupFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HooksFile {
    pub program: Spanned<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobFile {
    pub name: Name,
    pub active: SiteName,
    #[serde(default)]
    pub mode: ModeFile,
    #[serde(default, with = "SafetyFile")]
    pub safety: Safety,
    pub proof: Option<ProofPolicy>,
    pub commit: Option<Spanned<CommitPolicy>>,
    pub commit_after: Option<Spanned<Length>>,
    pub downtime_budget: Option<Length>,
    pub max_passes: Option<Passes>,
    pub pass_interval: Option<Length>,
    pub protection_interval: Option<Length>,
    pub max_replica_age: Option<Length>,
    pub keep_undo: Option<Spanned<bool>>,
    #[serde(default)]
    pub limit_cutover: bool,
    pub discard_baseline: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteFile {
    pub host: Filled,
    pub controller: Spanned<ControllerFile>,
    pub encryption: Option<Spanned<EncryptionFile>>,
    pub connect: Option<Spanned<ConnectFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectFile {
    pub rsh: Option<Filled>,
    pub remote_program: Option<Filled>,
    pub tls_cert: Option<HostPath>,
    pub tls_key: Option<HostPath>,
    pub tls_ca: Option<HostPath>,
    pub tls_name: Option<Spanned<Filled>>,
    pub timeout: Option<Patience>,
    pub state: Option<HostPath>,
    pub limit_rate: Option<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EncryptionFile {
    pub identity: Option<HostPath>,
    pub passphrase_file: Option<HostPath>,
    pub directory: Option<HostPath>,
    #[serde(default)]
    pub recipients: Vec<Filled>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControllerFile {
    pub kind: String,
    #[serde(default)]
    pub verbs: BTreeMap<Spanned<String>, Vec<String>>,
    pub program: Option<Vec<String>>,
    pub directory: Option<Spanned<HostPath>>,
    pub start: Option<Vec<String>>,
    pub time_limit: Option<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupFile {
    pub name: Spanned<Name>,
    #[serde(default)]
    pub vm: Vec<Spanned<VmFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VmFile {
    pub name: Spanned<Name>,
    #[serde(default)]
    pub networks: Vec<Filled>,
    #[serde(default)]
    pub create: bool,
    #[serde(default)]
    pub disk: Vec<DiskFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiskFile {
    pub identity: Spanned<Filled>,
    pub bytes: Option<DiskBytes>,
    pub primary: Spanned<At>,
    pub primary_format: Option<As>,
    pub recovery: Spanned<At>,
    pub recovery_format: Option<As>,
}

/// Reads the file; how its values go together is checked later.
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

/// The key, with its tables, that a byte stands in.
fn key_at(text: &str, at: usize) -> String {
    let until = text.get(..at).unwrap_or(text);
    let begin = until.rfind('\n').map_or(0, |end| end + 1);
    let line = text[begin..].lines().next().unwrap_or_default();
    let is_table = |line: &&str| line.trim_start().starts_with('[');
    let mut tables = until[..begin].lines().chain([line]).filter(is_table);
    let table = tables.next_back().unwrap_or_default();
    let mut keys = vec![table.split('#').next().unwrap_or_default()];
    if !is_table(&line) {
        keys.extend(line.split(['=', '#']).next());
        // Of a table that is written in one line, the key that comes last before that.
        let inline = until[begin..].rsplit_once(['{', ',']);
        let inline = inline.filter(|(before, _)| before.contains('=') && line.contains('{'));
        keys.extend(inline.and_then(|(_, key)| key.split('=').next()));
    }
    let keys = keys.iter().map(|key| key.trim().trim_matches(['[', ']']));
    let keys: Vec<_> = keys.filter(|key| !key.is_empty()).collect();
    keys.join(".")
}
