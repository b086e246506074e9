//! What to do about an error, as a type.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// Declares the advices that carry nothing, each with its words, which are its documentation too.
macro_rules! advices {
    ($($name:ident: $words:literal,)*) => {
        /// What to do about an error, or a fact that one has to know for it.
        ///
        /// `Display` gives it in words that name no option of a program; a program that has a
        /// setting for it words it itself, see [`Error::worded`](crate::Error::worded).
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Advice {
            /// A fact, or what no setting does, in words.
            Words(Cow<'static, str>),
            /// The image is of this format: name it.
            SourceFormat(Cow<'static, str>),
            /// The target is of this format: name it.
            TargetFormat(Cow<'static, str>),
            /// Pad the source with zeros up to a multiple of this many bytes.
            Align(u64),
            /// Name this log, to go on with it.
            TrustLog(PathBuf),
            $(#[doc = concat!("To ", $words, ".")] $name,)*
        }

        impl Advice {
            /// All that carry nothing.
            pub(crate) const PLAIN: &'static [Advice] = &[$(Advice::$name,)*];
        }

        impl fmt::Display for Advice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Advice::Words(words) => f.write_str(words),
                    Advice::SourceFormat(_) | Advice::TargetFormat(_) => {
                        f.write_str("name its format")
                    }
                    Advice::Align(bytes) => {
                        write!(f, "put zeros behind them, up to a whole sector of {bytes} bytes")
                    }
                    Advice::TrustLog(_) => f.write_str("name it as the log, to go on with it"),
                    $(Advice::$name => f.write_str($words),)*
                }
            }
        }
    };
}

advices! {
    AllowLarger: "allow a larger device; what is beyond the source stays as it is",
    AllowShrink: "allow the target to shrink, if the source is the right one",
    AtomicDelta: "write only what differs, through a redo log",
    DeltaMode: "write only what differs, to the file itself",
    DeltaWithLogDirectory: "write to the file itself, with the redo log in another directory",
    Discard: "discard the redo log",
    DiskOfBlob: "write to a page blob of a storage account and have a managed disk made of it, which \
                 takes bytes once, while it is being uploaded",
    FindState: "find out whether it is whole",
    Forget: "give up the bytes under the marker, then sync again",
    ForgetHeld: "give up the bytes under the marker and that the target is held, then sync again",
    FullMode: "write a new file",
    GiveHead: "give the bytes at the head from a copy of the disk",
    GiveHeadAndTail: "give the bytes at the head and the tail from a copy of the disk",
    GiveTail: "give the bytes at the tail from a copy of the disk",
    InPlace: "write in place, without a redo log",
    LogDirectory: "keep the redo log in another directory",
    LookAtJob: "look at what the job waits for",
    MakeRoom: "make room there",
    MarkerIsData: "if the guest of this disk wrote the marker itself, declare that to read it",
    Parent: "name the parent",
    RawSource: "read it as raw, if these bytes are the disk",
    RawTarget: "write to it as raw, if a raw disk is to be written over it",
    Recover: "have it recovered",
    RecoverSparse: "have it recovered with zeros that take no space",
    Release: "release it",
    RemoteProgram: "name the program there",
    RemoteShell: "name another remote shell",
    Remove: "remove it",
    ResumeJob: "go on with the job",
    Retry: "connect again after a while",
    RunAgain: "run it again",
    SameVersion: "run the same version of diskdelta on both hosts",
    ServeAddresses: "start it so that it may open the address",
    ServeWritable: "start it so that it may write",
    SkipUnreadable: "go on without the ranges that cannot be read",
    SparseAllocation: "let zeros take no space",
    StateDirectory: "start the agent with a directory for its state that it does not serve",
    TlsName: "if that is who it should be, name it as its certificate does",
    UndoElsewhere: "put the undo file elsewhere",
    UploadDisk: "name a page blob that is not there yet, or a managed disk made for that length",
    VerifyAll: "sync again with all of the target verified",
    WithoutCreate: "sync onto what is there",
    WithoutManifestCache: "run it again without the manifest of the source",
    WithoutSkipUnreadable: "let an unreadable range be an error",
    WithoutTargetManifest: "keep no target manifest",
    ZeroGuarded: "write zeros there",
}

impl<T: Into<Cow<'static, str>>> From<T> for Advice {
    fn from(words: T) -> Self {
        Advice::Words(words.into())
    }
}

impl Advice {
    /// The same with the texts and paths that it carries as `show` has them.
    pub(crate) fn shown(self, show: &dyn Fn(&str) -> String) -> Advice {
        match self {
            Advice::Words(words) => Advice::Words(show(&words).into()),
            Advice::TrustLog(log) => Advice::TrustLog(show(&log.to_string_lossy()).into()),
            other => other,
        }
    }

    /// What stands between it and the advice before it.
    fn joint(&self, before: &Advice) -> &'static str {
        match (before, self) {
            (Advice::Words(words), _) if words.ends_with(':') => " ",
            (Advice::Words(_), _) | (_, Advice::Words(_)) => "; ",
            (_, Advice::VerifyAll) => ", then ",
            _ => ", or ",
        }
    }
}

/// Writes `list` in one sentence, each as `words` has it.
pub(crate) fn write_all(
    list: &[Advice],
    words: &dyn Fn(&Advice) -> String,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    let mut before = None;
    for advice in list {
        out.write_str(before.map_or("", |before| advice.joint(before)))?;
        out.write_str(&words(advice))?;
        before = Some(advice);
    }
    Ok(())
}
