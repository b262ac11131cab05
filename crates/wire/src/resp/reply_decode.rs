//! Replies as a client reads them, for tests, benches and tools. The work is done by
//! `redis-protocol`; this translates its frames into [`Reply`].

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2;
use redis_protocol::resp3;

use super::{Reply, RespVersion};

/// What a server sent is no reply.
#[derive(Debug, thiserror::Error)]
#[error("decode reply: {0}")]
pub struct ReplyDecodeError(#[from] redis_protocol::error::RedisProtocolError);

/// Decodes the replies of one connection. Simple strings come out as [`Reply::Status`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplyDecoder {
    /// The version the session speaks.
    pub version: RespVersion,
}

impl ReplyDecoder {
    /// A decoder for a session of this version.
    pub fn new(version: RespVersion) -> ReplyDecoder {
        ReplyDecoder { version }
    }

    /// Takes the next complete reply out of `buffer`; `None` if more bytes are needed.
    ///
    /// A partial reply is decoded from its start at each call: good enough for tools.
    ///
    /// *Errors*: the stream is not RESP of this version.
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Reply>, ReplyDecodeError> {
        if buffer.is_empty() {
            return Ok(None);
        }
        match self.version {
            RespVersion::Resp2 => {
                let frame = resp2::decode::decode_bytes_mut(buffer)?;
                Ok(frame.map(|(frame, _, _)| from_resp2(frame)))
            }
            RespVersion::Resp3 => {
                let frame = resp3::decode::complete::decode_bytes_mut(buffer)?;
                Ok(frame.map(|(frame, _, _)| from_resp3(frame)))
            }
        }
    }
}

fn from_resp2(frame: resp2::types::BytesFrame) -> Reply {
    use resp2::types::BytesFrame as Frame;
    match frame {
        Frame::SimpleString(text) => Reply::Status(text),
        Frame::Error(text) => Reply::Error(text.into_inner()),
        Frame::Integer(number) => Reply::Integer(number),
        Frame::BulkString(bytes) => Reply::Bulk(bytes),
        Frame::Array(items) => Reply::Array(items.into_iter().map(from_resp2).collect()),
        // The crate does not tell the two nulls apart.
        Frame::Null => Reply::Null,
    }
}

fn from_resp3(frame: resp3::types::BytesFrame) -> Reply {
    use resp3::types::{BytesFrame as Frame, VerbatimStringFormat};
    match frame {
        Frame::BlobString { data, .. } | Frame::ChunkedString(data) => Reply::Bulk(data),
        Frame::BlobError { data, .. } => Reply::Error(data),
        Frame::SimpleString { data, .. } => Reply::Status(data),
        Frame::SimpleError { data, .. } => Reply::Error(data.into_inner()),
        Frame::Boolean { data, .. } => Reply::Boolean(data),
        Frame::Null => Reply::Null,
        Frame::Number { data, .. } => Reply::Integer(data),
        Frame::Double { data, .. } => Reply::Double(data),
        Frame::BigNumber { data, .. } => Reply::BigNumber(data),
        Frame::VerbatimString { data, format, .. } => Reply::Verbatim {
            format: match format {
                VerbatimStringFormat::Text => *b"txt",
                VerbatimStringFormat::Markdown => *b"mkd",
            },
            text: data,
        },
        Frame::Array { data, .. } => Reply::Array(data.into_iter().map(from_resp3).collect()),
        Frame::Push { data, .. } => Reply::Push(data.into_iter().map(from_resp3).collect()),
        Frame::Set { data, .. } => Reply::Set(data.into_iter().map(from_resp3).collect()),
        Frame::Map { data, .. } => Reply::Map(
            data.into_iter().map(|(key, value)| (from_resp3(key), from_resp3(value))).collect(),
        ),
        Frame::Hello { .. } => Reply::Status(Bytes::from_static(b"HELLO")),
    }
}
