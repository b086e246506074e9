//! What a controller asks of a QEMU.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::qmp::Qmp;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;

/// A QEMU that is there.
pub(crate) struct Monitor<'a> {
    qmp: Qmp,
    cancel: &'a CancelToken,
}

/// What a QEMU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    /// The guest runs, or may go on any moment.
    On,
    /// The guest has not begun.
    Begun,
    /// The guest has shut down; its memory is gone, its QEMU is not.
    Off,
}

/// A disk as QEMU has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub name: String,
    pub bytes: u64,
    pub bitmaps: BTreeSet<String>,
}

impl<'a> Monitor<'a> {
    /// The QEMU behind a socket; `None` where there is none. Each answer must be there within
    /// `limit`, and within a minute.
    pub(crate) fn connect(
        socket: &Path,
        limit: Duration,
        cancel: &'a CancelToken,
    ) -> Result<Option<Self>> {
        let qmp = Qmp::connect_until(socket, limit.min(ANSWER_LIMIT), cancel)?;
        Ok(qmp.map(|qmp| Monitor { qmp, cancel }))
    }

    /// Has a command done.
    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.qmp.execute(command, arguments)
    }

    /// Has several things done in one moment, or none of them.
    pub(crate) fn at_once(&mut self, actions: Vec<Value>) -> Result<()> {
        if actions.is_empty() {
            return Ok(());
        }
        self.run("transaction", json!({ "actions": actions }))
            .map(drop)
    }

    /// Whether the guest runs.
    pub(crate) fn power(&mut self) -> Result<Power> {
        let said = self.run("query-status", json!({}))?;
        match said["status"].as_str() {
            Some("shutdown") => Ok(Power::Off),
            Some("prelaunch") => Ok(Power::Begun),
            Some(_) => Ok(Power::On),
            None => Err(nonsense("its status")),
        }
    }

    /// A guest that shuts down leaves its QEMU behind from now on, with what it has recorded.
    pub(crate) fn stay(&mut self) -> Result<()> {
        self.run("set-action", json!({"shutdown": "pause"}))
            .map(drop)
    }

    /// The nodes of the disks in these files, in their order; never by position.
    ///
    /// # Errors
    /// `NotFound` for a disk that QEMU does not have, or has twice; those of [`Qmp::execute`].
    pub(crate) fn nodes(&mut self, disks: &[(String, PathBuf)]) -> Result<Vec<Node>> {
        let said = self.run("query-named-block-nodes", json!({"flat": true}))?;
        let all = said.as_array().ok_or_else(|| nonsense("its disks"))?;
        let of = |(identity, path): &(String, PathBuf)| {
            let own = path.canonicalize().unwrap_or_else(|_| path.clone());
            let mut found = all.iter().filter(|node| is_format_of(node, &own));
            match (found.next(), found.next()) {
                (Some(node), None) => node_of(node),
                (one, _) => {
                    let times = if one.is_some() {
                        "more than once"
                    } else {
                        "nowhere"
                    };
                    let text = format!("QEMU has the disk `{identity}` {times}");
                    Err(Error::new(ErrorKind::NotFound, text)
                        .at_path(path)
                        .advise("give QEMU the path that the plan has, as an absolute one"))
                }
            }
        };
        disks.iter().map(of).collect()
    }

    /// Waits until `is` says so, asking again and again.
    ///
    /// # Errors
    /// `Io` after `limit`, naming `what`; `Cancelled`; what `is` returns.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        mut is: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        while !is(self)? {
            self.cancel.check()?;
            if begin.elapsed() >= limit {
                let text = format!("QEMU has not come to {what} within {limit:?}");
                return Err(Error::new(ErrorKind::Io, text));
            }
            std::thread::sleep(NAP);
        }
        Ok(())
    }

    /// Waits for a job to end, and has it forgotten.
    ///
    /// # Errors
    /// `Io` for a job that failed, or takes too long; `Cancelled`.
    pub(crate) fn finish_job(&mut self, id: &str) -> Result<()> {
        self.wait(&format!("the end of `{id}`"), ANSWER_LIMIT, |monitor| {
            let Some(job) = monitor.job(id)? else {
                return Ok(true);
            };
            if job["status"] != "concluded" {
                return Ok(false);
            }
            monitor.run("job-dismiss", json!({ "id": id }))?;
            match job["error"].as_str() {
                None => Ok(true),
                Some(why) => {
                    let text = format!("QEMU's job `{id}` failed: {why}");
                    Err(Error::new(ErrorKind::Io, text))
                }
            }
        })
    }

    /// The state of a job; `None` where there is none of that name.
    pub(crate) fn job(&mut self, id: &str) -> Result<Option<Value>> {
        let said = self.run("query-jobs", json!({}))?;
        let jobs = said.as_array().into_iter().flatten();
        Ok(jobs.into_iter().find(|job| job["id"] == id).cloned())
    }

    /// The ids that a query tells of and that begin with `prefix`.
    pub(crate) fn ids(&mut self, query: &str, key: &str, prefix: &str) -> Result<Vec<String>> {
        let said = self.run(query, json!({}))?;
        let all = said.as_array().into_iter().flatten();
        let ids = all.filter_map(|it| it[key].as_str());
        let ours = ids.filter(|id| id.starts_with(prefix));
        Ok(ours.map(str::to_owned).collect())
    }

    /// Ends QEMU; the guest is off.
    pub(crate) fn quit(self) -> Result<()> {
        self.qmp.quit()
    }
}

/// Whether this is the node of the disk's format over that file; filters and the file itself have
/// other drivers.
fn is_format_of(node: &Value, path: &Path) -> bool {
    let driver = node["drv"].as_str().unwrap_or_default();
    let file = node["file"].as_str().and_then(file_of);
    let same = |file: PathBuf| file == path || file.canonicalize().is_ok_and(|it| it == path);
    FORMATS.contains(&driver) && file.is_some_and(same)
}

/// The file in a name of QEMU's, which is a path or says more in JSON.
fn file_of(name: &str) -> Option<PathBuf> {
    let Some(json) = name.strip_prefix("json:") else {
        return Some(PathBuf::from(name));
    };
    let options: Value = serde_json::from_str(json).ok()?;
    let places = [&options["file"]["filename"], &options["file.filename"]];
    places.iter().find_map(|it| it.as_str()).map(PathBuf::from)
}

fn node_of(node: &Value) -> Result<Node> {
    let bitmaps = node["dirty-bitmaps"].as_array().into_iter().flatten();
    // One that does not record, or is damaged, is as good as none.
    let good = |it: &&Value| it["inconsistent"] != true;
    let name = node["node-name"].as_str();
    let bytes = node["image"]["virtual-size"].as_u64();
    Ok(Node {
        name: name.ok_or_else(|| nonsense("a node's name"))?.to_owned(),
        bytes: bytes.ok_or_else(|| nonsense("a disk's length"))?,
        bitmaps: bitmaps
            .filter(good)
            .filter_map(|it| it["name"].as_str().map(str::to_owned))
            .collect(),
    })
}

fn nonsense(what: &str) -> Error {
    Error::malformed(format!("QEMU does not say {what}"))
}

const FORMATS: [&str; 4] = ["raw", "vpc", "vhdx", "qcow2"];
/// How long QEMU may take for anything but a guest's shutdown.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(50);
