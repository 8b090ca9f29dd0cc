//! What travels through a channel: a Python object, or something that becomes one where it is received: a time, or a value of a
//! plain type that came from another process.
//!
//! Timers fire on threads that are not attached to the interpreter, so a tick is a plain number until then. What comes over a
//! link stays bytes until somebody wants it: so the object is made on the thread that uses it, which free-threaded is many times
//! cheaper than to make it on one thread and drop it on another, and whoever reads the link hardly touches the interpreter.

use crate::plain;
use goslings_shm::{Garbage, Plain};
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use std::sync::Arc;

pub(crate) enum Value {
    Object(Py<PyAny>),
    /// Seconds on the clock of `time.monotonic()`.
    Time(f64),
    /// The value at this place of a slab; no pickle.
    Plain(u32, Arc<Slab>),
}

const _: () = assert!(size_of::<Value>() == 16, "two words, as with an object alone");

impl Value {
    #[inline]
    pub(crate) fn into_object(self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Value::Object(object) => object,
            Value::Time(seconds) => PyFloat::new(py, seconds).into_any().unbind(),
            Value::Plain(at, slab) => plain::object_of(py, &slab.get(at)).expect("no pickle").unbind(),
        }
    }
}

pub(crate) type Channel = goslings::Chan<Value>;

/// Values that came one after another, as records (see `stream.rs`): their memory goes away with the last of them.
///
/// Or they came together, as a frame of copies (see `lease.rs`).
///
/// In a checked one the number of the channel, which has been read by then, is replaced by the length of what follows.
#[derive(Debug, Default)]
pub(crate) struct Slab(Vec<u8>);

impl Slab {
    /// Where the next record goes: to the end.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Checks the record that begins at `at` and ends where all end; its head.
    pub(crate) fn check(&mut self, at: u32) -> Result<[u8; HEAD], Garbage> {
        let record = &mut self.0[at as usize..];
        let Some((head, body)) = record.split_first_chunk_mut::<HEAD>() else {
            return Err(Garbage("a value without a head"));
        };
        Plain::decode(head[1], body)?;
        let len = u32::try_from(body.len()).map_err(|_| Garbage("too long a value"))?;
        let said = *head;
        head[LEN].copy_from_slice(&len.to_le_bytes());
        Ok(said)
    }

    /// Writes a value to the end, as if checked. Not if it is too long.
    pub(crate) fn push(&mut self, plain: &Plain<'_>) {
        let mut number = [0; 8];
        let body = plain.body(&mut number);
        let Ok(len) = u32::try_from(body.len()) else { return };
        let mut head = [0; HEAD];
        head[1] = plain.tag();
        head[LEN].copy_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(&head);
        self.0.extend_from_slice(body);
    }

    /// Reads what somebody else has pushed to a slab, and where in it the values are.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Slab, Vec<u32>), Garbage> {
        let slab = Slab(bytes.to_vec());
        let mut places = Vec::new();
        let mut at = 0;
        while at < slab.0.len() {
            let (head, rest) =
                slab.0[at..].split_first_chunk::<HEAD>().ok_or(Garbage("a value without a head"))?;
            let len = u32::from_le_bytes(head[LEN].try_into().expect("four bytes")) as usize;
            let body = rest.get(..len).ok_or(Garbage("a value that is cut off"))?;
            Plain::decode(head[1], body)?;
            places.push(u32::try_from(at).map_err(|_| Garbage("too many values"))?);
            at += HEAD + len;
        }
        Ok((slab, places))
    }

    /// What was pushed.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What `check` or `read` has found right.
    pub(crate) fn get(&self, at: u32) -> Plain<'_> {
        let (head, rest) = self.0[at as usize..].split_at(HEAD);
        let len = u32::from_le_bytes(head[LEN].try_into().expect("four bytes"));
        Plain::decode(head[1], &rest[..len as usize]).expect("checked before")
    }
}

const HEAD: usize = 8;
const LEN: std::ops::Range<usize> = 4..8;
