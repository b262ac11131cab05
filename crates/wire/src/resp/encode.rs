//! Replies, as bytes: the only place that writes RESP to clients.
//!
//! Each element is written once, straight into the connection's buffer. CR and LF never get into a
//! line (simple strings and errors): they are replaced by spaces, so that no value a client chose
//! can forge a second reply.

use bytes::{BufMut, Bytes};

use super::double::{DOUBLE_BYTES_MAX, format_double};
use super::{Bulks, Reply, ReplyBuffer, RespVersion};

/// Appends a reply in the session's version.
pub fn encode(reply: &Reply, version: RespVersion, out: &mut ReplyBuffer) {
    let resp3 = version == RespVersion::Resp3;
    match reply {
        Reply::Simple(text) => line(b'+', text.as_bytes(), out),
        Reply::Status(text) => line(b'+', text, out),
        Reply::Error(text) => line(b'-', text, out),
        Reply::Integer(number) => header(b':', *number, out),
        Reply::Bulk(bytes) => bulk(bytes, out),
        Reply::Null if resp3 => out.put_slice(b"_\r\n"),
        Reply::Null => out.put_slice(b"$-1\r\n"),
        Reply::NullArray if resp3 => out.put_slice(b"_\r\n"),
        Reply::NullArray => out.put_slice(b"*-1\r\n"),
        Reply::Array(items) => aggregate(b'*', items, version, out),
        Reply::Bulks(items) => bulks(items, out),
        Reply::Set(items) => aggregate(if resp3 { b'~' } else { b'*' }, items, version, out),
        Reply::Push(items) => aggregate(if resp3 { b'>' } else { b'*' }, items, version, out),
        Reply::Map(pairs) => {
            match version {
                RespVersion::Resp2 => header(b'*', 2 * pairs.len(), out),
                RespVersion::Resp3 => header(b'%', pairs.len(), out),
            }
            pairs.iter().for_each(|(key, value)| pair(key, value, version, out));
        }
        Reply::Attributes(pairs) if resp3 => map(b'|', pairs, version, out),
        Reply::Attributes(_) => {}
        Reply::Keyed(pairs) if resp3 => map(b'%', pairs, version, out),
        Reply::Keyed(pairs) => {
            header(b'*', pairs.len(), out);
            for (key, value) in pairs {
                header(b'*', 2, out);
                pair(key, value, version, out);
            }
        }
        Reply::Pairs(pairs) if resp3 => {
            header(b'*', pairs.len(), out);
            for (key, value) in pairs {
                header(b'*', 2, out);
                pair(key, value, version, out);
            }
        }
        Reply::Pairs(pairs) => {
            header(b'*', 2 * pairs.len(), out);
            pairs.iter().for_each(|(key, value)| pair(key, value, version, out));
        }
        Reply::Double(value) => {
            let mut digits = [0; DOUBLE_BYTES_MAX];
            let digits = format_double(*value, &mut digits);
            if resp3 { line(b',', digits, out) } else { bulk_copied(digits, out) }
        }
        Reply::DoubleText(digits) if resp3 => line(b',', digits, out),
        Reply::DoubleText(digits) => bulk(digits, out),
        Reply::Boolean(value) if resp3 => out.put_slice(if *value { b"#t\r\n" } else { b"#f\r\n" }),
        Reply::Boolean(value) => header(b':', i64::from(*value), out),
        Reply::BigNumber(digits) if resp3 => line(b'(', digits, out),
        Reply::BigNumber(digits) => bulk(digits, out),
        Reply::Verbatim { format, text } if resp3 => {
            header(b'=', text.len() + format.len() + 1, out);
            out.put_slice(format);
            out.put_slice(b":");
            out.put_shared(text);
            out.put_slice(b"\r\n");
        }
        Reply::Verbatim { text, .. } => bulk(text, out),
        Reply::Sequence(replies) => {
            replies.iter().for_each(|reply| encode(reply, version, out));
        }
    }
}

fn map(kind: u8, pairs: &[(Reply, Reply)], version: RespVersion, out: &mut ReplyBuffer) {
    header(kind, pairs.len(), out);
    pairs.iter().for_each(|(key, value)| pair(key, value, version, out));
}

fn pair(key: &Reply, value: &Reply, version: RespVersion, out: &mut ReplyBuffer) {
    encode(key, version, out);
    encode(value, version, out);
}

fn aggregate(kind: u8, items: &[Reply], version: RespVersion, out: &mut ReplyBuffer) {
    header(kind, items.len(), out);
    items.iter().for_each(|item| encode(item, version, out));
}

fn bulks(items: &Bulks, out: &mut ReplyBuffer) {
    header(b'*', items.len(), out);
    out.put_shared(items.text());
}

fn bulk(bytes: &Bytes, out: &mut ReplyBuffer) {
    header(b'$', bytes.len(), out);
    out.put_shared(bytes);
    out.put_slice(b"\r\n");
}

fn bulk_copied(bytes: &[u8], out: &mut ReplyBuffer) {
    header(b'$', bytes.len(), out);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// Writes the kind, a number and the line's end.
fn header(kind: u8, number: impl itoa::Integer, out: &mut ReplyBuffer) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let tail = out.tail();
    tail.reserve(digits.len() + 3);
    tail.put_u8(kind);
    tail.put_slice(digits);
    tail.put_slice(b"\r\n");
}

/// Writes the kind, a text without CR and LF, and the line's end.
fn line(kind: u8, text: &[u8], out: &mut ReplyBuffer) {
    let tail = out.tail();
    tail.reserve(text.len() + 3);
    tail.put_u8(kind);
    let start = tail.len();
    tail.put_slice(text);
    for byte in &mut tail[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    tail.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    fn text(reply: &Reply, version: RespVersion) -> String {
        let mut out = ReplyBuffer::new();
        encode(reply, version, &mut out);
        let bytes = out.copy_to_bytes(out.remaining());
        bytes.escape_ascii().to_string()
    }

    #[test]
    fn each_kind_in_both_versions() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let cases: &[(Reply, &str, &str)] = &[
            (Reply::OK, r"+OK\r\n", r"+OK\r\n"),
            (Reply::Status(bytes("a\r\nb")), r"+a  b\r\n", r"+a  b\r\n"),
            (Reply::Error(bytes("ERR a\n+OK\r")), r"-ERR a +OK \r\n", r"-ERR a +OK \r\n"),
            (Reply::Integer(i64::MIN), r":-9223372036854775808\r\n", r":-9223372036854775808\r\n"),
            (Reply::Bulk(bytes("a\r\nb")), r"$4\r\na\r\nb\r\n", r"$4\r\na\r\nb\r\n"),
            (Reply::EMPTY, r"$0\r\n\r\n", r"$0\r\n\r\n"),
            (Reply::Null, r"$-1\r\n", r"_\r\n"),
            (Reply::NullArray, r"*-1\r\n", r"_\r\n"),
            (Reply::Array(vec![]), r"*0\r\n", r"*0\r\n"),
            (
                Reply::Array(vec![Reply::Integer(1), Reply::Null]),
                r"*2\r\n:1\r\n$-1\r\n",
                r"*2\r\n:1\r\n_\r\n",
            ),
            (
                Reply::Map(vec![(Reply::OK, Reply::Double(1.5))]),
                r"*2\r\n+OK\r\n$3\r\n1.5\r\n",
                r"%1\r\n+OK\r\n,1.5\r\n",
            ),
            (
                Reply::Pairs(vec![(Reply::OK, Reply::Null)]),
                r"*2\r\n+OK\r\n$-1\r\n",
                r"*1\r\n*2\r\n+OK\r\n_\r\n",
            ),
            (
                Reply::Keyed(vec![(Reply::OK, Reply::Null)]),
                r"*1\r\n*2\r\n+OK\r\n$-1\r\n",
                r"%1\r\n+OK\r\n_\r\n",
            ),
            (Reply::Set(vec![Reply::OK]), r"*1\r\n+OK\r\n", r"~1\r\n+OK\r\n"),
            (Reply::Push(vec![Reply::OK]), r"*1\r\n+OK\r\n", r">1\r\n+OK\r\n"),
            (Reply::Double(f64::INFINITY), r"$3\r\ninf\r\n", r",inf\r\n"),
            (Reply::DoubleText(bytes("0.10")), r"$4\r\n0.10\r\n", r",0.10\r\n"),
            (Reply::Boolean(true), r":1\r\n", r"#t\r\n"),
            (Reply::Boolean(false), r":0\r\n", r"#f\r\n"),
            (Reply::BigNumber(bytes("123")), r"$3\r\n123\r\n", r"(123\r\n"),
            (
                Reply::Verbatim { format: *b"txt", text: bytes("hi") },
                r"$2\r\nhi\r\n",
                r"=6\r\ntxt:hi\r\n",
            ),
            (Reply::Sequence(vec![Reply::OK, Reply::Null]), r"+OK\r\n$-1\r\n", r"+OK\r\n_\r\n"),
            (Reply::Sequence(vec![]), "", ""),
        ];
        for (reply, resp2, resp3) in cases {
            assert_eq!(text(reply, RespVersion::Resp2), *resp2, "{reply:?}");
            assert_eq!(text(reply, RespVersion::Resp3), *resp3, "{reply:?}");
        }
    }

    #[test]
    fn a_large_bulk_is_not_copied() {
        let value = Bytes::from(vec![7u8; 1 << 20]);
        let mut out = ReplyBuffer::new();
        encode(&Reply::Bulk(value.clone()), RespVersion::Resp2, &mut out);
        assert_eq!(out.chunk(), b"$1048576\r\n");
        out.advance(out.chunk().len());
        assert_eq!(out.chunk().as_ptr(), value.as_ptr());
        out.advance(value.len());
        assert_eq!(out.chunk(), b"\r\n");
    }
}
