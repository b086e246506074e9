//! VHDX, from outside: images of other software, hostile files, writing, crashes.

mod craft;
mod crash;
mod hostile;
mod hostile_log;
mod large;
mod oracle;
mod samples;
mod support;
mod writing;
