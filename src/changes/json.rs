//! JSON, read entry by entry.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};

/// What is read from the objects of a change map, field by field.
pub(super) trait Fields {
    /// Reads the value of a field, or [passes over](skip) it.
    ///
    /// # Errors
    /// Those of the value.
    fn field<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error>;

    /// The object has ended.
    ///
    /// # Errors
    /// `Malformed` for an object that lacks something.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Reads one value, and nothing but white space after it.
///
/// # Errors
/// `Malformed`, `Io`.
pub(super) fn read_one<'de, S, R>(input: R, seed: S) -> Result<S::Value>
where
    S: DeserializeSeed<'de>,
    R: Read,
{
    let mut json = serde_json::Deserializer::from_reader(ShortTokens::new(input));
    let value = seed.deserialize(&mut json).map_err(failed)?;
    json.end().map_err(failed)?;
    Ok(value)
}

/// Reads one or several objects that follow each other, or stand in arrays.
///
/// # Errors
/// `Malformed`, `Io`.
pub(super) fn read_objects<T: Fields, R: Read>(input: R, fields: &mut T) -> Result<()> {
    let mut json = serde_json::Deserializer::from_reader(ShortTokens::new(input));
    loop {
        Objects(fields).deserialize(&mut json).map_err(failed)?;
        if json.end().is_ok() {
            return Ok(());
        }
    }
}

/// Passes over the value of a field.
///
/// # Errors
/// Those of the value.
pub(super) fn skip<'de, M: MapAccess<'de>>(map: &mut M) -> Result<(), M::Error> {
    map.next_value::<serde::de::IgnoredAny>().map(drop)
}

/// Reads the value of a field that may stand once in its object.
///
/// # Errors
/// Those of the value.
pub(super) fn once<'de, M, T>(slot: &mut Option<T>, map: &mut M) -> Result<(), M::Error>
where
    M: MapAccess<'de>,
    T: Deserialize<'de>,
{
    match slot.replace(map.next_value()?) {
        None => Ok(()),
        Some(_) => Err(M::Error::custom("a field stands twice")),
    }
}

/// One object.
pub(super) struct Object<'a, T>(pub &'a mut T);

impl<'de, T: Fields> DeserializeSeed<'de> for Object<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, T: Fields> Visitor<'de> for Object<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key::<String>()? {
            self.0.field(&name, &mut map)?;
        }
        self.0.end().map_err(M::Error::custom)
    }
}

/// An object, or an array of objects.
struct Objects<'a, T>(&'a mut T);

impl<'de, T: Fields> DeserializeSeed<'de> for Objects<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Fields> Visitor<'de> for Objects<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, or an array of objects")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<(), M::Error> {
        Object(self.0).visit_map(map)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while seq.next_element_seed(Object(self.0))?.is_some() {}
        Ok(())
    }
}

/// An array, whose entries are given to a function one by one; `null` is an empty one.
pub(super) struct Each<T, F> {
    take: F,
    entry: PhantomData<T>,
}

/// Gives each entry of an array to `take`.
pub(super) fn each<T, F: FnMut(T) -> Result<()>>(take: F) -> Each<T, F> {
    Each {
        take,
        entry: PhantomData,
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<()>> DeserializeSeed<'de> for Each<T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<()>> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut seq: S) -> Result<(), S::Error> {
        while let Some(entry) = seq.next_element()? {
            (self.take)(entry).map_err(S::Error::custom)?;
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The error of a text that cannot be read.
fn failed(cause: serde_json::Error) -> Error {
    if !cause.is_io() {
        let what = "this is no change map of the named kind";
        return Error::malformed(what).caused_by(cause);
    }
    let cause = io::Error::from(cause);
    match cause.downcast::<Error>() {
        Ok(error) => error,
        Err(cause) => Error::io("read change map", cause),
    }
}

/// Ends with an error within a string or number that is longer than any of a change map, and in
/// objects and arrays that are nested deeper, so that none fills the memory.
struct ShortTokens<R> {
    inner: BufReader<R>,
    in_string: bool,
    is_escaped: bool,
    len: usize,
    depth: usize,
}

impl<R: Read> ShortTokens<R> {
    fn new(inner: R) -> Self {
        ShortTokens {
            inner: BufReader::with_capacity(64 << 10, inner),
            in_string: false,
            is_escaped: false,
            len: 0,
            depth: 0,
        }
    }

    fn look(&mut self, byte: u8) -> io::Result<()> {
        self.len += 1;
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.in_string => self.is_escaped = true,
            b'"' => (self.in_string, self.len) = (!self.in_string, 0),
            _ if self.in_string => {}
            b'[' | b'{' => (self.depth, self.len) = (self.depth + 1, 0),
            b']' | b'}' => (self.depth, self.len) = (self.depth.saturating_sub(1), 0),
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => self.len = 0,
            _ => {}
        }
        let what = if self.len > TOKEN_BYTES {
            "a change map holds a text or number that is too long"
        } else if self.depth > DEPTH_MAX {
            "a change map nests objects and arrays too deep"
        } else {
            return Ok(());
        };
        Err(io::Error::other(Error::malformed(what)))
    }
}

impl<R: Read> Read for ShortTokens<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.fill_buf()?.read(buf)?;
        self.inner.consume(len);
        for byte in buf.iter().take(len) {
            self.look(*byte)?;
        }
        Ok(len)
    }
}

const TOKEN_BYTES: usize = 64 << 10;
const DEPTH_MAX: usize = 32;
