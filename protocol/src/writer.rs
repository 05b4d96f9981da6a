//! The writing half of `wire.rs`: Kafka's primitive types into a growing buffer. It cannot fail.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// Writes a message into a growing buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buf: BytesMut,
}

impl Writer {
    /// A writer that goes on at the end of `buf`.
    pub fn append_to(buf: BytesMut) -> Self {
        Writer { buf }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// The bytes, to be written to further.
    pub fn into_inner(self) -> BytesMut {
        self.buf
    }

    /// The bytes.
    pub fn freeze(self) -> Bytes {
        self.buf.freeze()
    }

    /// Overwrites four bytes at `at`, which were written before (a frame's length).
    pub fn set_i32(&mut self, at: usize, value: i32) {
        self.buf[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Raw bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.put_slice(bytes);
    }
    /// One byte, 1 for true.
    pub fn bool(&mut self, value: bool) {
        self.buf.put_u8(u8::from(value));
    }
    /// INT8.
    pub fn i8(&mut self, value: i8) {
        self.buf.put_i8(value);
    }
    /// INT16.
    pub fn i16(&mut self, value: i16) {
        self.buf.put_i16(value);
    }
    /// UINT16.
    pub fn u16(&mut self, value: u16) {
        self.buf.put_u16(value);
    }
    /// INT32.
    pub fn i32(&mut self, value: i32) {
        self.buf.put_i32(value);
    }
    /// UINT32.
    pub fn u32(&mut self, value: u32) {
        self.buf.put_u32(value);
    }
    /// INT64.
    pub fn i64(&mut self, value: i64) {
        self.buf.put_i64(value);
    }
    /// FLOAT64.
    pub fn f64(&mut self, value: f64) {
        self.buf.put_f64(value);
    }
    /// UUID.
    pub fn uuid(&mut self, value: Uuid) {
        self.buf.put_slice(value.as_bytes());
    }

    /// UNSIGNED_VARINT.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buf.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    /// VARINT (zigzag).
    pub fn varint(&mut self, value: i32) {
        self.unsigned_varint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// VARLONG (zigzag).
    pub fn varlong(&mut self, value: i64) {
        let mut value = ((value << 1) ^ (value >> 63)) as u64;
        while value >= 0x80 {
            self.buf.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    fn length(&mut self, length: usize, flexible: bool, short: bool) {
        if flexible {
            self.unsigned_varint(length as u32 + 1);
        } else if short {
            self.i16(length as i16);
        } else {
            self.i32(length as i32);
        }
    }

    fn null(&mut self, flexible: bool, short: bool) {
        if flexible {
            self.unsigned_varint(0);
        } else if short {
            self.i16(-1);
        } else {
            self.i32(-1);
        }
    }

    /// STRING or COMPACT_STRING. A text longer than STRING can hold (32,767 bytes) is cut at a character.
    pub fn string(&mut self, value: &str, flexible: bool) {
        let value = if flexible { value } else { &value[..value.floor_char_boundary(32_767)] };
        self.length(value.len(), flexible, true);
        self.buf.put_slice(value.as_bytes());
    }

    /// A nullable string; null becomes empty in a version that has no null.
    pub fn nullable_string(&mut self, value: Option<&str>, flexible: bool, nullable: bool) {
        match value {
            Some(value) => self.string(value, flexible),
            None if nullable => self.null(flexible, true),
            None => self.string("", flexible),
        }
    }

    /// BYTES or COMPACT_BYTES.
    pub fn bytes(&mut self, value: &[u8], flexible: bool) {
        self.length(value.len(), flexible, false);
        self.buf.put_slice(value);
    }

    /// Nullable bytes; null becomes empty in a version that has no null.
    pub fn nullable_bytes(&mut self, value: Option<&[u8]>, flexible: bool, nullable: bool) {
        match value {
            Some(value) => self.bytes(value, flexible),
            None if nullable => self.null(flexible, false),
            None => self.bytes(&[], flexible),
        }
    }

    /// The length before an ARRAY or COMPACT_ARRAY of `count` elements.
    pub fn array_length(&mut self, count: usize, flexible: bool) {
        self.length(count, flexible, false);
    }

    /// The length before BYTES or COMPACT_BYTES whose `length` bytes follow by another way (`sendfile`).
    pub fn bytes_length(&mut self, length: usize, flexible: bool) {
        self.length(length, flexible, false);
    }

    /// ARRAY or COMPACT_ARRAY.
    pub fn array<T>(
        &mut self,
        items: &[T],
        flexible: bool,
        mut write: impl FnMut(&mut Writer, &T),
    ) {
        self.length(items.len(), flexible, false);
        for item in items {
            write(self, item);
        }
    }

    /// A nullable array; null becomes empty in a version that has no null.
    pub fn nullable_array<T>(
        &mut self,
        items: Option<&[T]>,
        flexible: bool,
        nullable: bool,
        write: impl FnMut(&mut Writer, &T),
    ) {
        match items {
            Some(items) => self.array(items, flexible, write),
            None if nullable => self.null(flexible, false),
            None => self.array(&[], flexible, write),
        }
    }

    /// Collects tagged fields.
    pub fn tags(&self) -> Tags {
        Tags { count: 0, fields: Writer::default() }
    }

    /// An empty list of tagged fields.
    pub fn no_tags(&mut self) {
        self.buf.put_u8(0);
    }
}

/// Tagged fields on their way into a [`Writer`], in the order of their tags.
#[derive(Debug)]
pub struct Tags {
    count: u32,
    fields: Writer,
}

impl Tags {
    /// Adds one field.
    pub fn field(&mut self, tag: u32, write: impl FnOnce(&mut Writer)) {
        let mut value = Writer::default();
        write(&mut value);
        self.count += 1;
        self.fields.unsigned_varint(tag);
        self.fields.unsigned_varint(value.len() as u32);
        self.fields.raw(&value.buf);
    }

    /// Writes count and fields.
    pub fn finish(self, w: &mut Writer) {
        w.unsigned_varint(self.count);
        w.raw(&self.fields.buf);
    }
}
