//! Many bulk strings as one reply: written as RESP while they are found.
//!
//! ```text
//! text = { $length CR LF item CR LF }                  the same in both versions of RESP
//! ```
//!
//! What reads a range of a list has its items as parts of larger rows. A [`Reply`] for each would
//! share its row, to be counted twice and looked at twice; a copy of some hundred bytes into the text
//! that will be sent costs less.

use bytes::{BufMut, Bytes, BytesMut};

use super::Reply;

/// Bytes that a short item takes in the text beside its own.
const FRAME_BYTES: usize = 8;

/// The array being made.
#[derive(Debug)]
pub struct BulksBuilder {
    count: usize,
    text: BytesMut,
}

impl BulksBuilder {
    /// Nothing yet, with room for so many items of so many bytes together.
    pub fn with_capacity(items: usize, bytes: usize) -> BulksBuilder {
        let room = items.saturating_mul(FRAME_BYTES).saturating_add(bytes);
        BulksBuilder { count: 0, text: BytesMut::with_capacity(room) }
    }

    /// Adds an item.
    pub fn push(&mut self, item: &[u8]) {
        self.count += 1;
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(item.len()).as_bytes();
        self.text.reserve(1 + digits.len() + 2 + item.len() + 2);
        self.text.put_u8(b'$');
        self.text.put_slice(digits);
        self.text.put_slice(b"\r\n");
        self.text.put_slice(item);
        self.text.put_slice(b"\r\n");
    }

    /// The reply: an array of the items.
    pub fn finish(self) -> Reply {
        Reply::Bulks(Bulks { count: self.count, text: self.text.freeze() })
    }
}

/// See the module's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bulks {
    count: usize,
    text: Bytes,
}

impl Bulks {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The items as RESP writes them.
    pub(super) fn text(&self) -> &Bytes {
        &self.text
    }

    /// Bytes of the text.
    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// The items.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.text[..];
        std::iter::from_fn(move || {
            let mut length = 0;
            rest = rest.strip_prefix(b"$")?;
            while let [digit @ b'0'..=b'9', behind @ ..] = rest {
                length = length * 10 + usize::from(digit - b'0');
                rest = behind;
            }
            let item = rest.get(2..2 + length)?;
            rest = &rest[2 + length + 2..];
            Some(item)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ReplyBuffer, RespVersion, encode};
    use super::*;

    #[test]
    fn they_are_written_and_read_as_an_array_is() {
        let long = vec![b'x'; 1_000];
        for items in [&[][..], &[b"a".as_slice(), b"", b"$3\r\nabc\r\n", &long, b"0123456789"]] {
            let mut builder = BulksBuilder::with_capacity(1, 3);
            items.iter().for_each(|item| builder.push(item));
            let reply = builder.finish();
            let array = items.iter().map(|item| Reply::Bulk(Bytes::copy_from_slice(item)));
            let array = Reply::Array(array.collect());
            for version in [RespVersion::Resp2, RespVersion::Resp3] {
                let mut written = [ReplyBuffer::new(), ReplyBuffer::new()];
                encode(&reply, version, &mut written[0]);
                encode(&array, version, &mut written[1]);
                let [one, other] = written.map(|mut out| {
                    let length = out.len();
                    bytes::Buf::copy_to_bytes(&mut out, length)
                });
                assert_eq!(one, other);
            }
            let Reply::Bulks(bulks) = reply else { panic!("{reply:?}") };
            assert_eq!((bulks.len(), bulks.is_empty()), (items.len(), items.is_empty()));
            assert!(bulks.iter().eq(items.iter().copied()));
        }
    }
}
