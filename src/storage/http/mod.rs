//! Disks at web servers and in object stores, read by ranges over HTTP/1.1.

mod checksum;
mod client;
mod failure;
pub(in crate::storage) mod headers;
mod http_storage;
mod options;
mod read_ahead;
mod request_limit;
mod resolver;
mod resource;
mod retries;
mod token;

pub(in crate::storage) use checksum::Checksum;
pub(in crate::storage) use client::{Client, Query};
pub(in crate::storage) use failure::Failure;
pub use http_storage::HttpStorage;
pub(in crate::storage) use http_storage::Ranges;
pub use options::HttpOptions;
pub(in crate::storage) use read_ahead::ReadAhead;
pub(in crate::storage) use resource::Resource;
