//! Disks at web servers and in clouds, behind servers of the tests' own.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod account;
mod agent;
mod azure;
mod blob;
#[path = "../remote/certificates.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod certificates;
mod controller;
#[path = "../cli/fixture.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod fixture;
mod home;
mod http;
mod nginx;
mod published;
mod resume;
mod secrets;
mod server;
mod since;
mod target;
