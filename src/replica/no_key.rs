//! Stands for keys in a build without the feature `encryption`, where there are none.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::Path;

use super::binding::BindingKey;
use super::key_file::KeyFile;
use crate::error::{Error, ErrorKind, Result};

/// No key.
pub struct Key(Infallible);

/// A stream that no key opens.
pub(super) struct Stream<S>(Infallible, PhantomData<S>);

pub(super) use Stream as StreamReader;
pub(super) use Stream as StreamWriter;

impl Key {
    /// Refuses.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn load(_: &KeyFile, _: &[String]) -> Result<Self> {
        let what = "this build cannot encrypt replicas (feature `encryption`)";
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        match self.0 {}
    }

    pub(super) fn seal<W: Write>(&self, _: W, _: &Path) -> Result<Stream<W>> {
        match self.0 {}
    }

    pub(super) fn open<R: Read + Seek>(&self, _: R, _: &Path) -> Result<Stream<R>> {
        match self.0 {}
    }

    pub(super) fn bindings(&self) -> Vec<BindingKey> {
        match self.0 {}
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl<S> Stream<S> {
    pub(super) fn finish(self) -> io::Result<S> {
        match self.0 {}
    }
}

impl<S> Read for Stream<S> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl<S> Seek for Stream<S> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        match self.0 {}
    }
}

impl<S> Write for Stream<S> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}
