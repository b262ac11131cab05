//! A client for what surrounds a measurement: a command, its reply, the fields of INFO.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use wire::resp::{Reply, ReplyDecoder, RespVersion};

/// No command of a measurement takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 64 << 10;

/// A connection that waits for each reply.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Client {
    /// Connects to a server of this machine.
    pub fn connect(port: u16) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, buffer: BytesMut::new() })
    }

    /// A command's reply, which may be an error reply.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<Reply> {
        let mut bytes = BytesMut::new();
        encode(words, &mut bytes);
        self.stream.write_all(&bytes)?;
        let mut chunk = [0; READ_BYTES];
        loop {
            if let Some(reply) = ReplyDecoder::new(RespVersion::Resp2).decode(&mut self.buffer)? {
                return Ok(reply);
            }
            let count = self.stream.read(&mut chunk)?;
            ensure!(count > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    /// The replies to commands that are sent together.
    pub fn ask_all(&mut self, lines: &[String]) -> Result<Vec<Reply>> {
        let mut bytes = BytesMut::new();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            encode(&words, &mut bytes);
        }
        self.stream.write_all(&bytes)?;
        let (mut replies, mut chunk) = (Vec::with_capacity(lines.len()), [0; READ_BYTES]);
        while replies.len() < lines.len() {
            while let Some(reply) =
                ReplyDecoder::new(RespVersion::Resp2).decode(&mut self.buffer)?
            {
                replies.push(reply);
            }
            if replies.len() < lines.len() {
                let count = self.stream.read(&mut chunk)?;
                ensure!(count > 0, "the server closed the connection");
                self.buffer.extend_from_slice(&chunk[..count]);
            }
        }
        Ok(replies)
    }

    /// A command's reply; an error reply is an error.
    pub fn call(&mut self, line: &str) -> Result<Reply> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        match self.ask(&words)? {
            Reply::Error(text) => bail!("{line}: {}", String::from_utf8_lossy(&text)),
            reply => Ok(reply),
        }
    }

    /// The numbers among the fields of an INFO section.
    pub fn info(&mut self, section: &str) -> Result<BTreeMap<String, f64>> {
        let Reply::Bulk(text) = self.call(&format!("INFO {section}"))? else {
            bail!("INFO {section} is no text")
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(fields
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// Whether the server knows a command: it does not answer `unknown command`.
    pub fn knows(&mut self, command: &str) -> Result<bool> {
        Ok(match self.ask(&[command.as_bytes()])? {
            Reply::Error(text) => !text.starts_with(b"ERR unknown command"),
            _ => true,
        })
    }
}

/// Writes a command as clients send it.
pub fn encode<W: AsRef<[u8]>>(words: &[W], out: &mut BytesMut) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
