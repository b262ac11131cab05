//! The same bytes given to the request decoder and to a real Redis server: the same commands run,
//! and the connection ends with the same error.
//!
//! Needs a server on loopback, of which it uses ECHO only:
//! `REDIS_PORT=… cargo test -p wire --test real_redis -- --ignored`

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::{Buf, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wire::resp::{Decoder, Limits, Reply, ReplyBuffer, RespVersion, encode};

/// Redis's limits instead of ours.
const REDIS_LIMITS: Limits = Limits {
    bulk_bytes: 512 << 20,
    args: i32::MAX as usize,
    line_bytes: 64 << 10,
    query_buffer_bytes: 1 << 30,
    authenticated: true,
};

/// What stands for an error line of a command, whose text is not the decoder's matter.
const COMMAND_ERROR: &[u8] = b"-command error\r\n";

/// All Redis answers until it closes the connection.
fn ask_redis(input: &[u8]) -> Vec<u8> {
    let port = std::env::var("REDIS_PORT").expect("REDIS_PORT names a server's port");
    let port = port.parse().expect("a port number");
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("a server on REDIS_PORT");
    socket.write_all(input).expect("a live connection");
    socket.shutdown(Shutdown::Write).expect("a live connection");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an orderly end");
    answer
}

/// What Redis would answer if it read the bytes as our decoder does.
fn ask_ours(input: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(REDIS_LIMITS);
    let mut buffer = BytesMut::from(input);
    let mut answer = ReplyBuffer::new();
    loop {
        match decoder.decode(&mut buffer) {
            Ok(None) => break,
            Ok(Some(args)) => match &args[..] {
                [name, text] if name.eq_ignore_ascii_case(b"ECHO") => {
                    encode(&Reply::Bulk(text.clone()), RespVersion::Resp2, &mut answer);
                }
                _ => answer.put_slice(COMMAND_ERROR),
            },
            Err(error) => {
                encode(&error.to_reply(), RespVersion::Resp2, &mut answer);
                break;
            }
        }
    }
    answer.copy_to_bytes(answer.len()).to_vec()
}

/// Puts [`COMMAND_ERROR`] in place of each error line that is none of the protocol. Error lines
/// hold no line break, but an echoed text may look like one: it is skipped by its length.
fn without_command_errors(mut answer: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !answer.is_empty() {
        let line = 1 + answer.iter().position(|byte| *byte == b'\n').expect("whole lines");
        let mut length = line;
        if let Some(digits) = answer[..line].strip_prefix(b"$") {
            let digits = std::str::from_utf8(&digits[..digits.len() - 2]).expect("digits");
            length += digits.parse::<usize>().expect("a length") + 2;
        }
        let (item, rest) = answer.split_at(length);
        let command_error = item[0] == b'-' && !item.starts_with(b"-ERR Protocol error");
        plain.extend_from_slice(if command_error { COMMAND_ERROR } else { item });
        answer = rest;
    }
    plain
}

fn compare(input: &[u8]) {
    let redis = without_command_errors(&ask_redis(input));
    let ours = ask_ours(input);
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(text(&ours), text(&redis), "ours, then Redis's answer to {}", text(input));
}

#[test]
#[ignore = "needs a Redis server on REDIS_PORT"]
fn hostile_requests_end_alike() {
    let headers: &[&[u8]] = &[
        b"",
        b"0",
        b"-1",
        b"-0",
        b"-",
        b"+1",
        b"01",
        b" 1",
        b"1 ",
        b"1a",
        b"abc",
        b"2147483648",
        b"9223372036854775808",
        b"-9223372036854775808",
        b"-9223372036854775809",
        b"99999999999999999999999999",
        b"1\n",
        b"*1",
        b"$4",
        b"1\t",
        b"1.0",
        b"0x1",
        b"1e3",
    ];
    let frames: &[(&[u8], &[u8])] = &[
        (b"*", b"\r\n$4\r\nECHO\r\n$1\r\na\r\n"),
        (b"*2\r\n$", b"\r\nECHO\r\n$1\r\na\r\n"),
        (b"*2\r\n$4\r\nECHO\r\n$", b"\r\na\r\n"),
    ];
    for (before, after) in frames {
        for header in headers {
            compare(&[*before, *header, *after].concat());
        }
    }
    // Every byte in place of a `$`, but NUL, at which Redis waits for more.
    for byte in 1..=255 {
        compare(&[&b"*2\r\n$4\r\nECHO\r\n"[..], &[byte], b"1\r\na\r\n"].concat());
    }
    for length in [65_535, 65_536, 65_537, 70_000] {
        let long = vec![b'1'; length];
        compare(&long);
        compare(&[&b"*"[..], &long].concat());
        compare(&[&b"*1\r\n$"[..], &long].concat());
    }
}

#[test]
#[ignore = "needs a Redis server on REDIS_PORT"]
fn inline_words_are_split_alike() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..4_000 {
        let mut line = b"ECHO ".to_vec();
        for _ in 0..rng.random_range(0..9) {
            let pieces: [&[u8]; 16] = [
                b"a", b"b", b" ", b"\t", b"\x0b", b"\x0c", b"\r", b"\"", b"\"", b"'", b"'", b"\\",
                b"\\x4", b"1", b"\\n", b"\xff",
            ];
            line.extend_from_slice(pieces[rng.random_range(0..pieces.len())]);
        }
        line.extend_from_slice(if rng.random() { b"\r\n" } else { b"\n" });
        compare(&line);
    }
}

#[test]
#[ignore = "needs a Redis server on REDIS_PORT"]
fn mutated_pipelines_are_read_alike() {
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..8_000 {
        let mut stream = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            let parts: [&[u8]; 6] = [
                b"*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\n",
                b"*2\r\n$4\r\necho\r\n$0\r\n\r\n",
                b"ECHO 'a b'\r\n",
                b"\r\n",
                b"*0\r\n",
                b"*-1\r\n",
            ];
            stream.extend_from_slice(parts[rng.random_range(0..parts.len())]);
        }
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..stream.len());
            let byte = b"*$\r\n0123-+ \"'x\xff"[rng.random_range(0..15)];
            match rng.random_range(0..3) {
                0 => stream[at] = byte,
                1 => stream.insert(at, byte),
                _ if stream.len() > 1 => drop(stream.remove(at)),
                _ => {}
            }
        }
        // A header without its end is refused by us as soon as its first byte is wrong, while
        // Redis waits for the end: so there is one.
        stream.extend_from_slice(b"\r\n\r\n");
        compare(&stream);
    }
}
