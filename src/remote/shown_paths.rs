//! What a client in a sandbox is shown of paths: those below its root, as it names them itself.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::text::{escape, escape_path};

/// Takes the paths of this host out of texts for a client; of one without a sandbox, none.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShownPaths {
    roots: Vec<PathBuf>,
}

impl ShownPaths {
    /// For a client whose sandbox is `root`.
    pub(crate) fn below(root: Option<&Path>) -> Self {
        let given = root.map(Path::to_owned);
        let real = root.and_then(|root| fs::canonicalize(root).ok());
        let mut roots: Vec<PathBuf> = real.into_iter().chain(given).collect();
        roots.retain(|root| root.is_absolute() && root.parent().is_some());
        roots.dedup();
        ShownPaths { roots }
    }

    /// A text of an error, or of its advice.
    pub(crate) fn error_text(&self, error: &Error, text: &str) -> String {
        let mut text = text.to_owned();
        if self.roots.is_empty() {
            return text;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(one) = cause {
            if let Some(path) = one.downcast_ref::<Error>().and_then(Error::path)
                && path.is_absolute()
                && !self.roots.iter().any(|root| path.starts_with(root))
            {
                text = text.replace(&escape_path(path), OUTSIDE);
            }
            cause = one.source();
        }
        self.text(&text)
    }

    /// Any other text.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = escape(text).into_owned();
        if self.roots.is_empty() {
            return text;
        }
        for root in &self.roots {
            let root = escape_path(root);
            text = text.replace(&format!("{root}/"), "");
            text = replace_whole(&text, &root, ".");
        }
        hide_absolute(&text)
    }
}

/// Replaces `path` where no longer name begins with it.
fn replace_whole(text: &str, path: &str, with: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(path) {
        let (before, found) = rest.split_at(at);
        let after = &found[path.len()..];
        let longer = after.chars().next().is_some_and(char::is_alphanumeric);
        out += before;
        out += if longer { path } else { with };
        rest = after;
    }
    out + rest
}

/// Hides what still looks like an absolute path, up to its first blank.
fn hide_absolute(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let begins = before.is_whitespace() || "(\"'`=,;:[".contains(before);
        let names = rest[c.len_utf8()..].chars().next();
        let names = names.is_some_and(|it| it.is_alphanumeric() || "._-\\".contains(it));
        if c == '/' && begins && names {
            let ends = |c: char| c.is_whitespace() || ";,:)\"'`]".contains(c);
            rest = &rest[rest.find(ends).unwrap_or(rest.len())..];
            out += OUTSIDE;
            before = 'x';
            continue;
        }
        out.push(c);
        before = c;
        rest = &rest[c.len_utf8()..];
    }
    out
}

const OUTSIDE: &str = "(a path that is not served)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn sandboxed() -> ShownPaths {
        ShownPaths {
            roots: vec!["/srv/my images".into()],
        }
    }

    #[test]
    fn a_confined_client_sees_paths_below_its_root_only() {
        let inner = Error::new(ErrorKind::Io, "failed").at_path("/var/lib/disk delta/x.log");
        let error = Error::new(
            ErrorKind::InUse,
            "another program has it open (/usr/bin/qemu)",
        )
        .at_path("/srv/my images/a/b c.raw")
        .caused_by(inner)
        .advise("look at /srv/my images/a/.b.log, or at /srv/my images; not at /etc/fstab");
        let text = sandboxed().error_text(&error, &error.to_string());
        assert_eq!(
            text,
            format!(
                "a/b c.raw: another program has it open ({OUTSIDE}): {OUTSIDE}: failed; \
                 look at a/.b.log, or at .; not at {OUTSIDE}"
            )
        );
    }

    #[test]
    fn a_client_that_is_not_confined_sees_all_and_other_slashes_stay() {
        let text = "/a/b: 3 B/s and/or 1/2";
        assert_eq!(ShownPaths::below(None).text(text), text);
        assert_eq!(ShownPaths::below(Some(Path::new("/"))).text(text), text);
        assert_eq!(
            sandboxed().text("3 B/s and/or 1/2, ssh://x/y"),
            "3 B/s and/or 1/2, ssh://x/y"
        );
        let other = "/srv/my images2/x";
        assert!(!sandboxed().text(other).contains("srv"));
    }
}
