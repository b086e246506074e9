//! What an address of the web leads to.

use std::sync::Arc;

use super::azure::PageBlob;
use super::http::{HttpOptions, HttpStorage, Resource};
use super::{SourceIdentity, Storage};
use crate::error::Result;
use crate::location::WebAddress;
use crate::progress::CancelToken;

/// A disk at a web server: plain bytes, or a page blob, as the server's answer says.
#[derive(Clone)]
pub enum WebStorage {
    /// Bytes that are read by ranges.
    Plain(Arc<HttpStorage>),
    /// A page blob of the Azure blob service.
    PageBlob(Arc<PageBlob>),
}

opaque!(WebStorage);

impl WebStorage {
    /// Opens what `address` leads to; work that reads it ends once `cancel` is set.
    ///
    /// # Errors
    /// `Untrusted` for a refusal of the server, and for connections without encryption to other
    /// hosts; `NotFound`; `Unsupported` for a server that knows no ranges, states no length, or
    /// packs its answers; `Malformed`, `Io`, `Cancelled`.
    pub fn open(address: &WebAddress, options: &HttpOptions, cancel: &CancelToken) -> Result<Self> {
        let resource = Resource::open(address, options, cancel)?;
        Ok(match resource.is_page_blob() {
            true => WebStorage::PageBlob(Arc::new(PageBlob::new(resource, cancel)?)),
            false => WebStorage::Plain(Arc::new(HttpStorage::new(resource, cancel))),
        })
    }

    /// The bytes.
    pub fn storage(&self) -> Arc<dyn Storage> {
        match self {
            WebStorage::Plain(storage) => storage.clone(),
            WebStorage::PageBlob(blob) => blob.clone(),
        }
    }

    /// Asks the server whether it still has the bytes that were opened.
    ///
    /// # Errors
    /// `SourceChanged`; those of reading.
    pub fn check(&self) -> Result<()> {
        match self {
            WebStorage::Plain(storage) => storage.check(),
            WebStorage::PageBlob(blob) => blob.check(),
        }
    }

    /// What tells these bytes from all others, where the server has a strong `ETag` for them.
    pub fn identity(&self) -> Option<SourceIdentity> {
        match self {
            WebStorage::Plain(storage) => storage.identity(),
            WebStorage::PageBlob(blob) => blob.blob().source_identity(),
        }
    }

    /// Dangers that are no errors.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            WebStorage::Plain(storage) => storage.warnings(),
            WebStorage::PageBlob(_) => Vec::new(),
        }
    }
}
