//! Values of a plan, each checked as it is read.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::duration::parse_duration;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::JobMode;
use crate::location::absolute_path;
use crate::units::parse_size;

/// Declares kinds of values: what each is read from, what it holds, and how it is checked.
macro_rules! values {
    ($($(#[$doc:meta])* $name:ident($holds:ty): $from:ty, $read:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name(pub $holds);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                let read: fn($from) -> Result<$holds> = $read;
                read(<$from>::deserialize(from)?).map($name).map_err(de::Error::custom)
            }
        }

        impl From<$name> for $holds {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    )*};
}

/// Reads what is checked as a `V`.
pub(super) fn checked<'de, V, T, D>(from: D) -> std::result::Result<T, D::Error>
where
    V: Deserialize<'de> + Into<T>,
    D: Deserializer<'de>,
{
    V::deserialize(from).map(Into::into)
}

values! {
    /// A name that may become part of a file's name.
    Name(String): String, |text| match is_name(&text) {
        true => Ok(text),
        false => Err(wrong(format!(
            "`{text}` is not a name of 1 to 64 letters, digits, `-`, `_` and `.`"
        ))),
    };
    /// A text that says something.
    Filled(String): String, |text| {
        match text.trim().is_empty() || text.chars().any(char::is_control) {
            true => Err(wrong("must not be empty")),
            false => Ok(text),
        }
    };
    /// An absolute path of this host.
    HostPath(PathBuf): String, |text| absolute_path(&text);
    /// A path in which sockets can be made.
    SocketDirectory(PathBuf): HostPath, |path| match path.0.as_os_str().len() <= DIRECTORY_MAX {
        true => Ok(path.0),
        // Better here than in the middle of a job.
        false => Err(wrong(format!(
            "is longer than {DIRECTORY_MAX} bytes: sockets could not be in it"
        ))),
    };
    /// Texts that say something.
    AllFilled(Vec<String>): Vec<Filled>, |all| Ok(all.into_iter().map(|it| it.0).collect());
    /// A program and its arguments.
    Argv(Vec<String>): Vec<String>, |argv| match argv.first() {
        Some(program) if !program.is_empty() => Ok(argv),
        _ => Err(wrong("no program is named")),
    };
    /// A length of time.
    Length(Duration): String, |text| parse_duration(&text);
    /// How long the other end may be silent.
    Patience(Duration): Length, |length| match length.0.is_zero() {
        true => Err(wrong("the time must not be 0")),
        false => Ok(length.0),
    };
    /// A number of passes.
    Passes(u32): u32, |passes| match passes {
        1..=1000 => Ok(passes),
        _ => Err(wrong("must be from 1 to 1000")),
    };
    /// A number of bytes, or of bytes a second.
    Size(u64): SizeText, |size| match size {
        SizeText::Bytes(bytes) => Ok(bytes),
        SizeText::Text(text) => parse_size(&text),
    };
    /// The length of a disk.
    DiskBytes(u64): Size, |size| match size.0 {
        0 => Err(wrong("a disk has at least one byte")),
        bytes => Ok(bytes),
    };
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a size must be a number of bytes or text like \"64G\""
)]
enum SizeText {
    Bytes(u64),
    Text(String),
}

/// What is copied when, or that an estimate decides.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ModeName {
    #[default]
    Auto,
    Delta,
    Full,
    FullFirst,
}

impl ModeName {
    pub(super) fn chosen(self) -> Option<JobMode> {
        match self {
            ModeName::Auto => None,
            ModeName::Delta => Some(JobMode::Delta),
            ModeName::Full => Some(JobMode::Full),
            ModeName::FullFirst => Some(JobMode::FullFirst),
        }
    }
}

/// Whether it is a name that may become part of a file's name.
pub(in crate::failback) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(plain) && !text.starts_with(['.', '-'])
}

fn wrong(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, why.into())
}

const DIRECTORY_MAX: usize = 80;
