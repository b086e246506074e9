//! What to do about an error, in terms of this command's options.

use crate::{Advice, Error};

/// The text of an error, with each advice followed by the option for it.
pub(super) fn text(error: &Error) -> String {
    error.worded(|advice| match option(advice) {
        Some(option) => format!("{advice} ({option})"),
        None => advice.to_string(),
    })
}

/// What to add to the command, to leave out, or to run. Nothing where the words are all there is.
fn option(advice: &Advice) -> Option<String> {
    let option = match advice {
        Advice::Words(_) => return None,
        Advice::MakeRoom | Advice::Remove | Advice::RunAgain | Advice::SameVersion => return None,
        Advice::SourceFormat(format) => return Some(format!("--source-format {format}")),
        Advice::TargetFormat(format) => return Some(format!("--target-format {format}")),
        Advice::Align(bytes) => return Some(format!("--align {bytes}")),
        Advice::TrustLog(log) => return Some(format!("--trust-log {}", log.display())),
        Advice::AllowLarger => "--allow-larger",
        Advice::AllowShrink => "--allow-shrink",
        Advice::AtomicDelta => "--mode delta --safety atomic",
        Advice::LookAtJob => "diskdelta failback status JOB",
        Advice::DeltaMode => "--mode delta",
        Advice::DeltaWithLogDirectory => "--mode delta --log-dir DIR",
        Advice::DiskOfBlob => "az disk create --source BLOB",
        Advice::Discard => "diskdelta recover --discard TARGET",
        Advice::Forget => "diskdelta recover TARGET --forget",
        Advice::ForgetHeld => "diskdelta recover TARGET --forget --release",
        Advice::FullMode => "--mode full",
        Advice::GiveHead => "--head FILE",
        Advice::GiveHeadAndTail => "--head FILE --tail FILE",
        Advice::GiveTail => "--tail FILE",
        Advice::InPlace => "--safety in-place",
        Advice::LogDirectory => "--log-dir DIR",
        Advice::MarkerIsData => "--marker-is-data",
        Advice::Parent => "--parent FILE",
        Advice::RawSource => "--source-format raw",
        Advice::RawTarget => "--target-format raw",
        Advice::FindState | Advice::Recover => "diskdelta recover TARGET",
        Advice::RecoverSparse => "diskdelta recover TARGET --allocation sparse",
        Advice::Release => "diskdelta recover TARGET --release",
        Advice::RemoteProgram => "--remote-program PROGRAM",
        Advice::RemoteShell => "--rsh COMMAND",
        Advice::ResumeJob => "diskdelta failback run JOB",
        Advice::Retry => "--retry",
        Advice::ServeAddresses => "serve --allow-url PREFIX",
        Advice::ServeWritable => "leave out --read-only",
        Advice::SkipUnreadable => "--skip-unreadable",
        Advice::SparseAllocation => "--allocation sparse",
        Advice::StateDirectory => "--state-dir DIR",
        Advice::TlsName => "--tls-name NAME",
        Advice::UndoElsewhere => "--undo FILE",
        Advice::UploadDisk => "az disk create --for-upload --upload-size-bytes BYTES",
        Advice::VerifyAll => "--verify all",
        Advice::WithoutCreate => "leave out --create",
        Advice::WithoutManifestCache => "leave out --manifest-cache",
        Advice::WithoutSkipUnreadable => "leave out --skip-unreadable",
        Advice::WithoutTargetManifest => "leave out --target-manifest",
        Advice::ZeroGuarded => "--zero-guarded",
    };
    Some(option.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// Every option of the command and of its verbs, and the verbs.
    fn known() -> Vec<String> {
        let mut known = Vec::new();
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            known.push(command.get_name().to_owned());
            let options = command.get_arguments().filter_map(clap::Arg::get_long);
            known.extend(options.map(|long| format!("--{long}")));
            commands.extend(command.get_subcommands().cloned());
        }
        known
    }

    #[test]
    fn every_advice_is_worded_with_options_that_there_are() {
        let with_something = [
            Advice::SourceFormat("vhdx".into()),
            Advice::TargetFormat("vhd".into()),
            Advice::Align(4096),
            Advice::TrustLog("/logs/a".into()),
        ];
        let known = known();
        for advice in with_something.iter().chain(Advice::PLAIN) {
            let words = advice.to_string();
            assert!(
                !words.is_empty() && !words.contains("--"),
                "{advice:?}: {words}"
            );
            let error = Error::new(ErrorKind::Io, "failed").advise(advice.clone());
            let text = text(&error);
            assert!(text.starts_with(&format!("failed; {words}")), "{text}");
            let option = option(advice).unwrap_or_default();
            let failback = cfg!(feature = "failback") || !option.contains("failback");
            let tls = cfg!(feature = "tls") || *advice != Advice::TlsName;
            let state = cfg!(feature = "failback") || *advice != Advice::StateDirectory;
            let is_option = |word: &&str| word.starts_with('-');
            if option.starts_with("az ") {
                // Another program's.
                continue;
            }
            for word in option.split(' ').filter(is_option) {
                let is_known = known.iter().any(|it| it == word);
                assert!(
                    is_known || !(failback && tls && state),
                    "{advice:?}: {word}"
                );
            }
            let mut verbs = option
                .split(' ')
                .skip_while(|word| *word != "diskdelta")
                .skip(1);
            if let Some(verb) = verbs.next() {
                assert!(
                    known.iter().any(|it| it == verb) || !failback,
                    "{advice:?}: {verb}"
                );
            }
        }
    }

    #[test]
    fn the_advice_of_causes_is_worded_too_and_ways_are_told_apart_from_facts() {
        let cause = Error::new(ErrorKind::NoSpace, "no room")
            .advise("the target is untouched")
            .or_advise(Advice::LogDirectory)
            .or_advise(Advice::InPlace);
        let error = Error::new(ErrorKind::NoSpace, "cannot log").caused_by(cause);
        assert_eq!(
            text(&error),
            "cannot log: no room; the target is untouched; keep the redo log in another directory \
             (--log-dir DIR), or write in place, without a redo log (--safety in-place)"
        );
        assert!(!error.to_string().contains("--"));
    }
}
