//! The command, run as a person or a script runs it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../remote/certificates.rs"]
mod certificates;
mod changes;
mod containers;
mod devices;
mod durable;
mod export;
mod file_systems;
mod fixture;
mod flooded;
mod foreign;
mod forget;
mod guest_marker;
mod interrupted;
mod map;
mod nbd;
mod refusals;
mod remote;
mod renames;
mod sandbox;
mod sectors;
mod service;
mod side_files;
mod texts;
mod verbs;
mod words;
