//! The checksum of a stored row.
//!
//! ```text
//! sealed value = body crc:u32          little-endian CRC-32C over the row's key, then the body
//! ```
//!
//! The leader seals a value once; log, memtables, followers and fjall carry the sealed bytes as
//! they are. The key is in the sum, so that a value that ends up under another key is noticed.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that sealing adds to a value.
pub const SEAL_BYTES: usize = 4;

/// The value is not what was sealed under this key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a stored row failed its checksum")]
pub struct Damaged;

/// The sealed value of a row.
pub fn seal_row(key: &[u8], body: &[u8]) -> Bytes {
    let mut sealed = BytesMut::with_capacity(body.len() + SEAL_BYTES);
    sealed.put_slice(body);
    sealed.put_u32_le(checksum(key, body));
    sealed.freeze()
}

/// The body of a sealed value, a slice of it.
pub fn open_row(key: &[u8], sealed: &Bytes) -> Result<Bytes, Damaged> {
    let body = verify_row(key, sealed)?.len();
    Ok(sealed.slice(..body))
}

/// The body of a sealed value, borrowed.
pub fn verify_row<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let (body, crc) = sealed.split_last_chunk::<SEAL_BYTES>().ok_or(Damaged)?;
    if checksum(key, body) == u32::from_le_bytes(*crc) { Ok(body) } else { Err(Damaged) }
}

/// The body of a sealed value whose batch was verified when it came into memory.
pub(crate) fn body_of(sealed: &[u8]) -> &[u8] {
    &sealed[..sealed.len().saturating_sub(SEAL_BYTES)]
}

pub(crate) fn checksum(key: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_under_the_key_opens() {
        for body in [&b""[..], b"x", &[7; 1000]] {
            let sealed = seal_row(b"key", body);
            assert_eq!(sealed.len(), body.len() + SEAL_BYTES);
            assert_eq!(open_row(b"key", &sealed).unwrap(), body);
            assert_eq!(open_row(b"kez", &sealed), Err(Damaged));
            for at in 0..sealed.len() {
                let mut flipped = sealed.to_vec();
                flipped[at] ^= 0x20;
                assert_eq!(verify_row(b"key", &flipped), Err(Damaged));
            }
            assert_eq!(verify_row(b"key", &sealed[..sealed.len() - 1]), Err(Damaged));
        }
        assert_eq!(verify_row(b"key", b"abc"), Err(Damaged));
    }
}
