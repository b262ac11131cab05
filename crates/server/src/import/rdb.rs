//! RDB files of Redis 2.6 to 8: where each value begins and ends, and nothing more of it.
//!
//! ```text
//! file   = "REDIS" version:4 digits { item } 0xff [crc64:u64]      checksum from version 5 on, 0: none
//! item   = { 0xfc expire_at_ms:i64 | 0xfd expire_at_s:i32 | 0xf8 idle:length | 0xf9 freq:u8 }
//!          type:u8 key:string value
//!        | 0xfe db:length | 0xfb keys:length volatile:length | 0xfa name:string value:string
//!        | 0xf4 slot:length keys:length volatile:length
//!        | 0xf5 function library:string | 0xf6 the same of 7.0's candidates | 0xf7 a module's data
//! value  = see [`skip_value`]; strings and lengths are those of DUMP payloads
//! ```
//!
//! The file is read twice: first for its checksum, so that nothing is written of a file that is
//! damaged, then for its keys. Numbers are little-endian but for lengths. What a length says is read in
//! pieces, so no more memory is taken than the file has bytes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use commands::rdb_checksum;
use wire::resp::Reply;

use super::progress::Progress;
use super::{Entry, PAYLOAD_BYTES_MAX, Writer};

/// The newest version of the format that is read: Redis 8's.
const VERSION_MAX: u16 = 12;
/// The first with a checksum.
const VERSION_CHECKSUM: u16 = 5;
/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 20;

const OPCODE_SLOT: u8 = 0xf4;
const OPCODE_FUNCTION: u8 = 0xf5;
const OPCODE_FUNCTION_EARLY: u8 = 0xf6;
const OPCODE_MODULE: u8 = 0xf7;
const OPCODE_IDLE: u8 = 0xf8;
const OPCODE_FREQUENCY: u8 = 0xf9;
const OPCODE_AUX: u8 = 0xfa;
const OPCODE_SIZES: u8 = 0xfb;
const OPCODE_EXPIRE_MS: u8 = 0xfc;
const OPCODE_EXPIRE_S: u8 = 0xfd;
const OPCODE_DATABASE: u8 = 0xfe;
const OPCODE_END: u8 = 0xff;

/// Writes the keys of a file, or those of one database.
pub(super) fn import(
    path: &Path,
    only: Option<u32>,
    writer: &mut Writer,
    progress: &mut Progress,
) -> Result<()> {
    let name = path.display().to_string();
    let open = || File::open(path).with_context(|| format!("open {name}"));
    let total = open()?.metadata()?.len();
    let version = check_file(open()?).with_context(|| format!("check {name}"))?;
    let mut file = Input::new(BufReader::with_capacity(BUFFER_BYTES, open()?));
    file.bytes::<9>()?;
    let footer = version.to_le_bytes();
    let (mut db, mut expire_at_ms) = (0u32, 0u64);
    loop {
        let at = file.position;
        let here = || format!("{name}: at byte {at}");
        match file.byte().with_context(here)? {
            OPCODE_END => return Ok(()),
            OPCODE_DATABASE => db = u32::try_from(file.length().with_context(here)?)?,
            OPCODE_EXPIRE_MS => {
                expire_at_ms = u64::try_from(i64::from_le_bytes(file.bytes()?)).unwrap_or(1).max(1);
            }
            OPCODE_EXPIRE_S => {
                let seconds = u64::try_from(i32::from_le_bytes(file.bytes()?)).unwrap_or(1);
                expire_at_ms = (seconds * 1000).max(1);
            }
            OPCODE_IDLE => drop(file.length().with_context(here)?),
            OPCODE_FREQUENCY => drop(file.byte().with_context(here)?),
            OPCODE_AUX => {
                file.skip_string().with_context(here)?;
                file.skip_string().with_context(here)?;
            }
            OPCODE_SIZES => drop((file.length()?, file.length()?)),
            OPCODE_SLOT => drop((file.length()?, file.length()?, file.length()?)),
            OPCODE_FUNCTION => {
                let code = file.string().with_context(here)?;
                load_function(writer, &code)?;
            }
            OPCODE_FUNCTION_EARLY => bail!("{}: a function of a release candidate of 7.0", here()),
            OPCODE_MODULE => {
                bail!("{}: data of {}, which cannot be read", here(), module(file.length()?));
            }
            kind => {
                let key = file.string().with_context(here)?;
                let value = file
                    .value(kind)
                    .with_context(|| format!("{}: key '{}'", here(), key.escape_ascii()))?;
                let key = Bytes::from(key);
                let ttl_ms = std::mem::take(&mut expire_at_ms);
                if only.is_none_or(|only| only == db) {
                    match value {
                        Some(value) => {
                            let payload = sealed(kind, &value, footer);
                            writer.put(Entry { db, key, ttl_ms, is_absolute: true, payload })?;
                        }
                        None => writer.refuse((db, &key), "the value is longer than 64 MiB"),
                    }
                }
                progress.show(file.position, total, writer.written);
            }
        }
    }
}

/// Reads a whole file for its checksum; its version.
///
/// *Errors*: it is no RDB file, a newer one, or damaged.
fn check_file(mut file: impl Read) -> Result<u16> {
    let mut head = [0; 9];
    file.read_exact(&mut head).context("it is too short for an RDB file")?;
    ensure!(&head[..5] == b"REDIS", "it is no RDB file");
    let version = std::str::from_utf8(&head[5..]).ok().and_then(|digits| digits.parse().ok());
    let version: u16 = version.context("it is no RDB file")?;
    ensure!(version <= VERSION_MAX, "its version is {version}, the newest known is {VERSION_MAX}");
    if version < VERSION_CHECKSUM {
        return Ok(version);
    }
    // The last eight bytes are the checksum of all before them.
    let mut checksum = rdb_checksum(0, &head);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut held = 0;
    loop {
        let read = file.read(&mut buffer[held..])?;
        if read == 0 {
            break;
        }
        held += read;
        if let Some(covered) = held.checked_sub(8) {
            checksum = rdb_checksum(checksum, &buffer[..covered]);
            buffer.copy_within(covered..held, 0);
            held = 8;
        }
    }
    let told: [u8; 8] = buffer[..held].try_into().ok().context("it ends too early")?;
    match u64::from_le_bytes(told) {
        0 => eprintln!("the file has no checksum: damage in it may go unseen"),
        told => ensure!(told == checksum, "its checksum is wrong: it is damaged or cut off"),
    }
    Ok(version)
}

/// A value as RESTORE takes it.
fn sealed(kind: u8, value: &[u8], version: [u8; 2]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(value.len() + 11);
    payload.push(kind);
    payload.extend_from_slice(value);
    payload.extend_from_slice(&version);
    let checksum = rdb_checksum(0, &payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

/// Loads a function library, if the target knows such a thing.
fn load_function(writer: &mut Writer, code: &[u8]) -> Result<()> {
    let mut line: Vec<&[u8]> = vec![b"FUNCTION", b"LOAD"];
    if writer.replace {
        line.push(b"REPLACE");
    }
    line.push(code);
    let reply = writer.call(&line)?;
    if matches!(reply, Reply::Error(_)) {
        writer.refuse_functions(&reply);
    }
    Ok(())
}

/// A module's name: nine letters of six bits, and a version of ten.
fn module(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |nth: u32| char::from(LETTERS[(id >> (10 + 6 * nth) & 63) as usize]);
    let name: String = (0..9).rev().map(letter).collect();
    format!("the module '{name}' (version {})", id & 1023)
}

/// What is read of a file, in order.
struct Input<R> {
    from: R,
    position: u64,
    /// The value that is being read; `None` while none is, or if it has become too long.
    value: Option<Vec<u8>>,
}

impl<R: Read> Input<R> {
    fn new(from: R) -> Input<R> {
        Input { from, position: 0, value: None }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).context("the file ends too early")?;
        self.note(&bytes);
        Ok(bytes)
    }

    fn note(&mut self, bytes: &[u8]) {
        self.position += bytes.len() as u64;
        if let Some(value) = &mut self.value {
            value.extend_from_slice(bytes);
            if value.len() > PAYLOAD_BYTES_MAX {
                self.value = None;
            }
        }
    }

    fn byte(&mut self) -> Result<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    /// Reads so many bytes and hands them on piece by piece.
    fn pass(&mut self, count: u64, mut piece: impl FnMut(&[u8])) -> Result<()> {
        let mut left = count;
        let mut buffer = [0; 16 << 10];
        while left > 0 {
            let size = left.min(buffer.len() as u64) as usize;
            self.from.read_exact(&mut buffer[..size]).context("the file ends too early")?;
            self.note(&buffer[..size]);
            piece(&buffer[..size]);
            left -= size as u64;
        }
        Ok(())
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        self.pass(count, |_| {})
    }

    /// A length, or what else is written like one.
    fn length(&mut self) -> Result<u64> {
        let first = self.byte()?;
        self.length_after(first)
    }

    fn length_after(&mut self, first: u8) -> Result<u64> {
        Ok(match (first >> 6, first) {
            (0, _) => u64::from(first),
            (1, _) => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            (2, 0x80) => u64::from(u32::from_be_bytes(self.bytes()?)),
            (2, 0x81) => u64::from_be_bytes(self.bytes()?),
            _ => bail!("0x{first:02x} begins no length"),
        })
    }

    /// Passes over a string in any of its forms.
    fn skip_string(&mut self) -> Result<()> {
        match self.byte()? {
            0xc0 => self.skip(1),
            0xc1 => self.skip(2),
            0xc2 => self.skip(4),
            0xc3 => {
                let (packed, _) = (self.length()?, self.length()?);
                self.skip(packed)
            }
            first => {
                let length = self.length_after(first)?;
                self.skip(length)
            }
        }
    }

    /// A string that is wanted as it is: a key or a function.
    fn string(&mut self) -> Result<Vec<u8>> {
        Ok(match self.byte()? {
            0xc0 => i8::from_le_bytes(self.bytes()?).to_string().into_bytes(),
            0xc1 => i16::from_le_bytes(self.bytes()?).to_string().into_bytes(),
            0xc2 => i32::from_le_bytes(self.bytes()?).to_string().into_bytes(),
            0xc3 => {
                let (packed, length) = (self.length()?, self.length()?);
                let mut bytes = Vec::new();
                self.pass(packed, |piece| bytes.extend_from_slice(piece))?;
                let length = usize::try_from(length)?;
                commands::unpack_lzf(&bytes, length).context("a packed string is damaged")?
            }
            first => {
                let length = self.length_after(first)?;
                let mut bytes = Vec::new();
                self.pass(length, |piece| bytes.extend_from_slice(piece))?;
                bytes
            }
        })
    }

    /// The bytes of a value; `None` if they are too many to be sent.
    fn value(&mut self, kind: u8) -> Result<Option<Vec<u8>>> {
        self.value = Some(Vec::new());
        self.skip_value(kind)?;
        Ok(self.value.take())
    }

    fn skip_value(&mut self, kind: u8) -> Result<()> {
        match kind {
            // A string, or what is packed into one: ziplists, intsets, listpacks.
            0 | 9..=13 | 16 | 17 | 20 | 23 => self.skip_string(),
            // A list or a set of strings; a quicklist of ziplists.
            1 | 2 | 14 => self.repeat(Self::skip_string),
            // A sorted set with scores as texts.
            3 => self.repeat(|input| {
                input.skip_string()?;
                match input.byte()? {
                    0xfd..=0xff => Ok(()),
                    length => input.skip(u64::from(length)),
                }
            }),
            4 => self.repeat(|input| input.skip_string().and_then(|()| input.skip_string())),
            5 => self.repeat(|input| input.skip_string().and_then(|()| input.skip(8))),
            // A quicklist: each node says how it is packed.
            18 => self.repeat(|input| input.length().and_then(|_| input.skip_string())),
            15 | 19 | 21 => self.skip_stream(kind),
            // Hashes with times to live.
            22 => self.repeat(Self::skip_timed_field),
            24 => {
                self.skip(8)?;
                self.repeat(Self::skip_timed_field)
            }
            25 => self.skip(8).and_then(|()| self.skip_string()),
            6 | 7 => bail!("a value of {}, which cannot be read", module(self.length()?)),
            other => bail!("type {other} is not known"),
        }
    }

    fn repeat(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        for _ in 0..self.length()? {
            element(self)?;
        }
        Ok(())
    }

    fn lengths(&mut self, count: usize) -> Result<()> {
        (0..count).try_for_each(|_| self.length().map(drop))
    }

    fn skip_timed_field(&mut self) -> Result<()> {
        self.length()?;
        self.skip_string()?;
        self.skip_string()
    }

    /// See `stream_dump.rs` for what is passed over.
    fn skip_stream(&mut self, kind: u8) -> Result<()> {
        self.repeat(|input| input.skip_string().and_then(|()| input.skip_string()))?;
        self.lengths(3)?;
        if kind >= 19 {
            self.lengths(5)?;
        }
        self.repeat(|group| {
            group.skip_string()?;
            group.lengths(if kind >= 19 { 3 } else { 2 })?;
            group.repeat(|pending| {
                pending.skip(16 + 8)?;
                pending.lengths(1)
            })?;
            group.repeat(|consumer| {
                consumer.skip_string()?;
                consumer.skip(if kind >= 21 { 16 } else { 8 })?;
                consumer.repeat(|pending| pending.skip(16))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of these items, with its checksum.
    fn file(items: &[u8]) -> Vec<u8> {
        let mut bytes = [b"REDIS0011", items, &[OPCODE_END]].concat();
        let checksum = rdb_checksum(0, &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn files_are_checked_before_anything_is_read() {
        let good = file(b"\0\x01k\x01v");
        assert_eq!(check_file(&good[..]).expect("a good file"), 11);
        for at in 9..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(check_file(&bad[..]).is_err(), "byte {at}");
        }
        for cut in 0..good.len() - 1 {
            assert!(check_file(&good[..cut]).is_err(), "{cut} bytes");
        }
        assert!(check_file(&b"REDIS0099"[..]).unwrap_err().to_string().contains("version is 99"));
        let mut unsealed = good.clone();
        let end = unsealed.len();
        unsealed[end - 8..].fill(0);
        assert_eq!(check_file(&unsealed[..]).expect("no checksum is not wrong"), 11);
    }

    #[test]
    fn values_end_where_they_end() {
        let value = |kind: u8, bytes: &[u8]| {
            let mut input = Input::new(bytes);
            let value = input.value(kind).expect("a value").expect("a short one");
            assert_eq!((value.as_slice(), input.position), (bytes, bytes.len() as u64), "{kind}");
        };
        value(0, b"\xc0\x05");
        value(0, b"\xc3\x02\x40\x64ab");
        value(1, b"\x02\x01a\xc1\x05\x01");
        value(3, b"\x02\x01a\xff\x01b\x011");
        value(5, b"\x01\x01a12345678");
        value(18, b"\x02\x01\x01a\x02\x02bb");
        value(22, b"\x01\x05\x01f\x01v");
        value(24, b"12345678\x01\x00\x01f\x01v");
        value(25, b"12345678\x02lp");
        let stream1 = b"\x01\x10aaaabbbbccccdddd\x02lp\x01\x05\x00\x01\x01g\x01\x02\x01aaaabbbbccccdddd12345678\x01\x01\x01c12345678\x01aaaabbbbccccdddd";
        value(15, stream1);
        value(
            19,
            b"\x00\x00\x05\x00\x01\x02\x03\x04\x05\x01\x01g\x01\x02\x03\x00\x01\x01c12345678\x00",
        );
        value(21, b"\x00\x00\x05\x00\x01\x02\x03\x04\x05\x01\x01g\x01\x02\x03\x00\x01\x01c1234567812345678\x00");
    }

    #[test]
    fn modules_and_what_is_not_known_are_refused_by_name() {
        // The ID of the type `ReJSON-RL`, version 3.
        let id = "ReJSON-RL".bytes().fold(0u64, |id, letter| {
            let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            id << 6 | letters.iter().position(|l| *l == letter).expect("a letter") as u64
        }) << 10
            | 3;
        let bytes = [&[0x81][..], &id.to_be_bytes()].concat();
        let refused = Input::new(&bytes[..]).value(7).unwrap_err().to_string();
        assert!(refused.contains("'ReJSON-RL' (version 3)"), "{refused}");
        assert!(Input::new(&b"x"[..]).value(99).unwrap_err().to_string().contains("type 99"));
        assert!(Input::new(&b"\x82"[..]).value(0).is_err());
        assert!(Input::new(&b"\x81\xff\xff\xff\xff\xff\xff\xff\xff"[..]).value(1).is_err());
    }
}
