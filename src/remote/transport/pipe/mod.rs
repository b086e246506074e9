//! Pipes of a program that end when this process says so, whatever has their other ends open.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::Pipe;
#[cfg(unix)]
pub(in crate::remote) use unix::PipeEnd;
#[cfg(windows)]
pub(crate) use windows::Pipe;
#[cfg(windows)]
pub(in crate::remote) use windows::PipeEnd;
