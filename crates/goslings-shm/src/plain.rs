//! Values that need no pickle: a tag, and bytes. What a record says of a value beside that is its kind's matter.
//!
//! ```text
//! tag   bytes
//!  N    none: None           T, F  none: True, False
//!  i    8: an i64            f     8: a float's
//!  b    those of bytes       s     UTF-8 of a str
//!  P    a pickle, which this module does not look into
//! ```
//!
//! Numbers are little-endian. The bytes end where the record does, so no length is written, and none has to be believed.

use crate::ring::Garbage;

/// A value of a plain type, whose bytes belong to somebody else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plain<'a> {
    /// Python's None.
    Nothing,
    /// A bool.
    Bool(bool),
    /// An int of 64 bits. Larger ones are pickled.
    Int(i64),
    /// A float.
    Float(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A str without lone surrogates. Others are pickled.
    Str(&'a str),
    /// Anything else, pickled, without buffers and descriptors.
    Pickle(&'a [u8]),
}

impl<'a> Plain<'a> {
    /// What it is.
    #[must_use]
    pub fn tag(&self) -> u8 {
        match self {
            Plain::Nothing => b'N',
            Plain::Bool(true) => b'T',
            Plain::Bool(false) => b'F',
            Plain::Int(_) => b'i',
            Plain::Float(_) => b'f',
            Plain::Bytes(_) => b'b',
            Plain::Str(_) => b's',
            Plain::Pickle(_) => b'P',
        }
    }

    /// Its bytes; `number` is room for those that are not anywhere yet.
    #[must_use]
    pub fn body<'b>(&self, number: &'b mut [u8; 8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Plain::Nothing | Plain::Bool(_) => &[],
            Plain::Int(int) => {
                *number = int.to_le_bytes();
                number
            }
            Plain::Float(float) => {
                *number = float.to_le_bytes();
                number
            }
            Plain::Bytes(bytes) | Plain::Pickle(bytes) => bytes,
            Plain::Str(str) => str.as_bytes(),
        }
    }

    /// How many bytes it takes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Plain::Bytes(bytes) | Plain::Pickle(bytes) => bytes.len(),
            Plain::Str(str) => str.len(),
            _ => 8,
        }
    }

    /// The value that was written as this.
    ///
    /// # Errors
    /// [`Garbage`] if nothing was. The bytes of a pickle may still be anything.
    pub fn decode(tag: u8, body: &'a [u8]) -> Result<Plain<'a>, Garbage> {
        let eight = || body.try_into().map_err(|_| Garbage("a number that has not 8 bytes"));
        match tag {
            b'b' => Ok(Plain::Bytes(body)),
            b's' => std::str::from_utf8(body).map(Plain::Str).map_err(|_| Garbage("a str that is no UTF-8")),
            b'i' => Ok(Plain::Int(i64::from_le_bytes(eight()?))),
            b'f' => Ok(Plain::Float(f64::from_le_bytes(eight()?))),
            b'P' => Ok(Plain::Pickle(body)),
            b'N' | b'T' | b'F' if !body.is_empty() => Err(Garbage("bytes after a value that has none")),
            b'N' => Ok(Plain::Nothing),
            b'T' => Ok(Plain::Bool(true)),
            b'F' => Ok(Plain::Bool(false)),
            _ => Err(Garbage("a value of an unknown type")),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn there_and_back(value: Plain<'_>) {
        let mut number = [0xAA; 8];
        let body = value.body(&mut number).to_vec();
        assert_eq!(Plain::decode(value.tag(), &body), Ok(value));
    }

    #[test]
    fn what_is_written_is_read() {
        there_and_back(Plain::Nothing);
        there_and_back(Plain::Bool(true));
        there_and_back(Plain::Bool(false));
        for int in [0, 1, -1, i64::MAX, i64::MIN] {
            there_and_back(Plain::Int(int));
        }
        for float in [0.0, -1.5, f64::INFINITY, f64::MIN_POSITIVE] {
            there_and_back(Plain::Float(float));
        }
        for bytes in [&b""[..], b"x", b"\0\xFF", &[7; 1000]] {
            there_and_back(Plain::Bytes(bytes));
            there_and_back(Plain::Pickle(bytes));
        }
        for str in ["", "x", "\0", "naïve \u{10FFFF}"] {
            there_and_back(Plain::Str(str));
        }
    }

    #[test]
    fn a_float_keeps_its_bits() {
        for bits in [(-0.0f64).to_bits(), f64::NAN.to_bits(), 0x7FF4_0000_0000_0001, 1] {
            let mut number = [0; 8];
            let float = Plain::Float(f64::from_bits(bits));
            let Ok(Plain::Float(read)) = Plain::decode(float.tag(), float.body(&mut number)) else {
                panic!("not a float");
            };
            assert_eq!(read.to_bits(), bits);
        }
    }

    #[test]
    fn other_lengths_and_other_text_are_garbage() {
        for tag in *b"if" {
            for len in (0..20).filter(|&len| len != 8) {
                assert!(Plain::decode(tag, &vec![0; len]).is_err(), "{tag} with {len} bytes");
            }
        }
        for tag in *b"NTF" {
            assert!(Plain::decode(tag, &[0]).is_err(), "{tag} with a byte");
        }
        // Cut off, overlong, a lone surrogate, beyond the last character.
        for text in [&b"\xC3"[..], b"\xC0\x80", b"\xED\xA0\x80", b"\xF4\x90\x80\x80", b"a\xFF"] {
            assert!(Plain::decode(b's', text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn whatever_comes_is_a_value_or_garbage() {
        // A fixed walk over tags and bytes: what is read can be written again, and is the same.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut read = 0;
        let rounds = if cfg!(miri) { 300 } else { 30_000 };
        for round in 0..rounds {
            let tag = (round % 256) as u8;
            let body: Vec<u8> = (0..random() % 12).map(|_| random() as u8).collect();
            if let Ok(value) = Plain::decode(tag, &body) {
                let mut number = [0; 8];
                assert_eq!((value.tag(), value.body(&mut number)), (tag, &body[..]));
                read += 1;
            }
        }
        assert!(read > 0, "nothing was a value");
    }
}
