//! The primitive types of Kafka's protocol: a reader that trusts no length and a writer that cannot fail.
//!
//! Source: Kafka documentation, "Protocol Primitive Types", and KIP-482 (tagged fields).
//! Invariants: the reader never allocates more than the frame can back, and never panics on any bytes.

use bytes::Bytes;
use uuid::Uuid;

pub use crate::writer::{Tags, Writer};

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame ends inside a field.
    #[error("{needed} more bytes are needed at byte {at}, and {left} are left")]
    Short {
        /// Position in the frame.
        at: usize,
        /// Bytes the field needs.
        needed: usize,
        /// Bytes left in the frame.
        left: usize,
    },
    /// A length or count is negative where it may not be.
    #[error("negative length {length} at byte {at}")]
    NegativeLength {
        /// Position in the frame.
        at: usize,
        /// The length on the wire.
        length: i64,
    },
    /// An array claims more elements than there are bytes left.
    #[error("array of {count} elements at byte {at}, but only {left} bytes are left")]
    ArrayTooLong {
        /// Position in the frame.
        at: usize,
        /// Claimed elements.
        count: usize,
        /// Bytes left in the frame.
        left: usize,
    },
    /// A variable-length integer is longer than its type.
    #[error("variable-length integer too long at byte {at}")]
    BadVarint {
        /// Position in the frame.
        at: usize,
    },
    /// A string is not UTF-8.
    #[error("string at byte {at} is not UTF-8")]
    BadString {
        /// Position in the frame.
        at: usize,
    },
    /// The message does not exist in this version.
    #[error("{message} has no version {version}")]
    BadVersion {
        /// The message's name in Kafka's schemas.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field has a value that Kafka's rules do not allow.
    #[error("{0}")]
    Invalid(String),
}

/// A message of Kafka's schemas: a request, a response or a record of an internal topic.
pub trait Message: Sized {
    /// Kafka's name of it.
    const NAME: &'static str;
    /// Its api key (for a coordinator's key record: the key's version); -1 where it has none.
    const KEY: i16;
    /// Lowest and highest version, inclusive.
    const VERSIONS: (i16, i16);
    /// First flexible version (KIP-482); `i16::MAX` where there is none.
    const FLEXIBLE: i16;

    /// Reads one message.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are not such a message.
    fn decode(r: &mut Reader, version: i16) -> Result<Self, WireError>;

    /// Writes the message; fields that the version does not have are left out.
    fn encode(&self, w: &mut Writer, version: i16);

    /// # Errors
    /// [`WireError::BadVersion`] outside [`Self::VERSIONS`].
    fn check_version(version: i16) -> Result<(), WireError> {
        if version < Self::VERSIONS.0 || version > Self::VERSIONS.1 {
            return Err(WireError::BadVersion { message: Self::NAME, version });
        }
        Ok(())
    }

    /// The message's bytes alone.
    fn to_bytes(&self, version: i16) -> Bytes {
        let mut w = Writer::default();
        self.encode(&mut w, version);
        w.freeze()
    }

    /// The message that takes up all of `bytes`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are not exactly such a message.
    fn from_bytes(bytes: Bytes, version: i16) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let message = Self::decode(&mut r, version)?;
        if r.left() > 0 {
            return Err(WireError::Invalid(format!(
                "{} bytes are left after {} version {version}",
                r.left(),
                Self::NAME
            )));
        }
        Ok(message)
    }
}

/// A request, and the response that answers it.
pub trait Request: Message {
    /// The answer's type.
    type Response: Message;
}

/// Reads a frame from front to back. Byte fields are slices of the frame, not copies.
#[derive(Debug, Clone)]
pub struct Reader {
    buf: Bytes,
    at: usize,
}

/// First allocation for an array, in elements; it grows as elements are really read.
const ARRAY_START: usize = 64;

impl Reader {
    /// A reader at the start of `buf`.
    pub fn new(buf: Bytes) -> Self {
        Reader { buf, at: 0 }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// All that is left.
    pub fn rest(&self) -> Bytes {
        self.buf.slice(self.at..)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.buf[self.at..].first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(self.short(N)),
        }
    }

    fn short(&self, needed: usize) -> WireError {
        WireError::Short { at: self.at, needed, left: self.left() }
    }

    /// The next `length` bytes, shared with the frame.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn slice(&mut self, length: usize) -> Result<Bytes, WireError> {
        if self.left() < length {
            return Err(self.short(length));
        }
        let slice = self.buf.slice(self.at..self.at + length);
        self.at += length;
        Ok(slice)
    }

    /// One byte that is 0 for false.
    pub fn bool(&mut self) -> Result<bool, WireError> {
        Ok(self.i8()? != 0)
    }
    /// INT8.
    pub fn i8(&mut self) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.take()?))
    }
    /// INT16.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.take()?))
    }
    /// UINT16.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.take()?))
    }
    /// INT32.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.take()?))
    }
    /// UINT32.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.take()?))
    }
    /// INT64.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.take()?))
    }
    /// FLOAT64.
    pub fn f64(&mut self) -> Result<f64, WireError> {
        Ok(f64::from_be_bytes(self.take()?))
    }
    /// UUID.
    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        Ok(Uuid::from_bytes(self.take()?))
    }

    /// UNSIGNED_VARINT.
    pub fn unsigned_varint(&mut self) -> Result<u32, WireError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadVarint { at: self.at })
    }

    /// VARINT (zigzag).
    pub fn varint(&mut self) -> Result<i32, WireError> {
        let value = self.unsigned_varint()?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// VARLONG (zigzag).
    pub fn varlong(&mut self) -> Result<i64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(WireError::BadVarint { at: self.at })
    }

    /// A length before a string (`short`) or bytes; `None` is null.
    fn length(&mut self, flexible: bool, short: bool) -> Result<Option<usize>, WireError> {
        let at = self.at;
        let length = if flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else if short {
            i64::from(self.i16()?)
        } else {
            i64::from(self.i32()?)
        };
        match length {
            -1 => Ok(None),
            n if n < 0 => Err(WireError::NegativeLength { at, length }),
            n => Ok(Some(n as usize)),
        }
    }

    fn text(&mut self, length: usize) -> Result<String, WireError> {
        let at = self.at;
        if self.left() < length {
            return Err(self.short(length));
        }
        let text = std::str::from_utf8(&self.buf[at..at + length])
            .map_err(|_| WireError::BadString { at })?
            .to_owned();
        self.at += length;
        Ok(text)
    }

    /// STRING or COMPACT_STRING that may not be null.
    pub fn string(&mut self, flexible: bool) -> Result<String, WireError> {
        let at = self.at;
        match self.length(flexible, true)? {
            Some(length) => self.text(length),
            None => Err(WireError::NegativeLength { at, length: -1 }),
        }
    }

    /// STRING or COMPACT_STRING, null where the version allows it.
    pub fn nullable_string(
        &mut self,
        flexible: bool,
        nullable: bool,
    ) -> Result<Option<String>, WireError> {
        let at = self.at;
        match self.length(flexible, true)? {
            Some(length) => self.text(length).map(Some),
            None if nullable => Ok(None),
            None => Err(WireError::NegativeLength { at, length: -1 }),
        }
    }

    /// BYTES or COMPACT_BYTES that may not be null.
    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes, WireError> {
        let at = self.at;
        match self.length(flexible, false)? {
            Some(length) => self.slice(length),
            None => Err(WireError::NegativeLength { at, length: -1 }),
        }
    }

    /// BYTES or COMPACT_BYTES, null where the version allows it.
    pub fn nullable_bytes(
        &mut self,
        flexible: bool,
        nullable: bool,
    ) -> Result<Option<Bytes>, WireError> {
        let at = self.at;
        match self.length(flexible, false)? {
            Some(length) => self.slice(length).map(Some),
            None if nullable => Ok(None),
            None => Err(WireError::NegativeLength { at, length: -1 }),
        }
    }

    /// ARRAY or COMPACT_ARRAY; the count is held against the bytes left before anything is allocated.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        nullable: bool,
        mut read: impl FnMut(&mut Reader) -> Result<T, WireError>,
    ) -> Result<Option<Vec<T>>, WireError> {
        let at = self.at;
        let Some(count) = self.length(flexible, false)? else {
            return if nullable {
                Ok(None)
            } else {
                Err(WireError::NegativeLength { at, length: -1 })
            };
        };
        if count > self.left() {
            return Err(WireError::ArrayTooLong { at, count, left: self.left() });
        }
        let mut items = Vec::with_capacity(count.min(ARRAY_START));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(Some(items))
    }

    /// The tagged fields; `read` returns false for a tag it does not know, which is then skipped.
    pub fn tagged(
        &mut self,
        mut read: impl FnMut(&mut Reader, u32) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        let count = self.unsigned_varint()?;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let mut field = Reader::new(self.slice(size)?);
            if read(&mut field, tag)? && field.left() > 0 {
                return Err(WireError::Invalid(format!(
                    "{} bytes are left after tagged field {tag}",
                    field.left()
                )));
            }
        }
        Ok(())
    }

    /// Passes over tagged fields where the version knows none.
    pub fn skip_tagged(&mut self) -> Result<(), WireError> {
        self.tagged(|_, _| Ok(false))
    }
}
