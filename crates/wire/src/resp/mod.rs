//! RESP2 and RESP3, as clients speak them.
//!
//! Requests come in through [`Decoder`], replies go out through [`encode`] into a [`ReplyBuffer`].
//! [`ReplyDecoder`] is the client's side, for tests, benches and tools.
//!
//! Nothing here reads a socket: the connection reads bytes into a `BytesMut` and writes what a
//! [`ReplyBuffer`] holds.

mod bulks;
mod decode;
mod double;
mod encode;
mod inline;
mod limits;
mod reply;
mod reply_buffer;
mod reply_decode;

pub use bulks::{Bulks, BulksBuilder};
pub use decode::{Arguments, DecodeError, Decoder};
pub use double::{DOUBLE_BYTES_MAX, format_double};
pub use encode::encode;
pub use inline::{SplitError, split_arguments};
pub use limits::Limits;
pub use reply::Reply;
pub use reply_buffer::{ReplyBuffer, SHARED_BULK_BYTES};
pub use reply_decode::{ReplyDecodeError, ReplyDecoder};

/// The version a session speaks; `HELLO` changes it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum RespVersion {
    /// What every client understands; the default.
    #[default]
    Resp2,
    /// Maps, sets, doubles, pushes.
    Resp3,
}
