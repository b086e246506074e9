//! Ranges that belong to a request, in messages of their own behind it.

use std::ops::Range;

use super::messages::{AgentRequest, wrong};
use crate::error::Result;
use crate::progress::CancelToken;
use crate::remote::format::LIST_MOST;
use crate::remote::{Message, Session};

/// Sends the ranges of each source that has some.
pub(super) fn send(session: &Session, lists: &[Vec<Range<u64>>]) -> Result<()> {
    for some in lists.iter().flat_map(|list| list.chunks(LIST_MOST)) {
        session.line().send(&Message::Windows(some.to_vec()))?;
    }
    Ok(())
}

/// Takes the ranges of each source of a request: `None` where it brings none.
///
/// # Errors
/// `Malformed` for something else, and for more or fewer than the request says; `Io`, `Cancelled`.
pub(super) fn receive(
    session: &Session,
    request: &AgentRequest,
    cancel: &CancelToken,
) -> Result<Vec<Option<Vec<Range<u64>>>>> {
    let mut lists = Vec::new();
    for from in request.sources() {
        let Some(count) = from.ranges else {
            lists.push(None);
            continue;
        };
        let mut list = Vec::new();
        while (list.len() as u64) < count {
            match session.line().receive("its ranges", cancel)? {
                Message::Windows(some) if !some.is_empty() => list.extend(some),
                _ => return Err(wrong()),
            }
        }
        if list.len() as u64 > count {
            return Err(wrong());
        }
        lists.push(Some(list));
    }
    Ok(lists)
}
