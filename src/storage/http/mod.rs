//! Disks at web servers and in object stores, read by ranges over HTTP/1.1.

mod client;
mod failure;
mod headers;
mod http_storage;
mod options;
mod read_ahead;
mod request_limit;
mod resource;
mod retries;

pub use http_storage::HttpStorage;
pub use options::HttpOptions;
