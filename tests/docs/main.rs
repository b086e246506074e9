//! Holds the documentation against what it describes: command lines, links, columns, words.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod commands;
mod errors;
mod links;
mod pages;
mod sandbox;
mod schema;
mod words;
