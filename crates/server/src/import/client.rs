//! A connection to a server that speaks RESP2, with pipelines; it waits.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use wire::resp::{Reply, ReplyDecoder, RespVersion};

use super::Address;

/// How long a server may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a server may be silent before it is taken for dead.
const SILENT_MAX: Duration = Duration::from_secs(120);
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// See the module's text.
pub(super) struct Client {
    stream: TcpStream,
    output: Vec<u8>,
    input: BytesMut,
    decoder: ReplyDecoder,
}

impl Client {
    /// Connects and logs in.
    pub(super) fn connect(address: &Address) -> Result<Client> {
        let mut refused = None;
        let places = address.place.to_socket_addrs().context("find the address")?;
        for place in places {
            match TcpStream::connect_timeout(&place, CONNECT_WITHIN) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(SILENT_MAX))?;
                    stream.set_write_timeout(Some(SILENT_MAX))?;
                    let decoder = ReplyDecoder::new(RespVersion::Resp2);
                    let (output, input) = (Vec::new(), BytesMut::new());
                    let mut client = Client { stream, output, input, decoder };
                    client.log_in(address)?;
                    return Ok(client);
                }
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) => Err(error.into()),
            None => bail!("the name has no address"),
        }
    }

    fn log_in(&mut self, address: &Address) -> Result<()> {
        let Some(password) = &address.password else { return Ok(()) };
        let reply = match &address.user {
            Some(user) => self.call(&[b"AUTH", user.as_bytes(), password.as_bytes()])?,
            None => self.call(&[b"AUTH", password.as_bytes()])?,
        };
        ensure!(!matches!(reply, Reply::Error(_)), "log in: {}", text(&reply));
        Ok(())
    }

    /// Adds a command to the pipeline.
    pub(super) fn queue(&mut self, line: &[&[u8]]) {
        self.output.extend_from_slice(format!("*{}\r\n", line.len()).as_bytes());
        for word in line {
            self.output.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.output.extend_from_slice(word);
            self.output.extend_from_slice(b"\r\n");
        }
    }

    /// Sends the pipeline.
    pub(super) fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// The next reply.
    pub(super) fn reply(&mut self) -> Result<Reply> {
        loop {
            if let Some(reply) = self.decoder.decode(&mut self.input)? {
                return Ok(reply);
            }
            let start = self.input.len();
            self.input.resize(start + READ_BYTES, 0);
            let read = self.stream.read(&mut self.input[start..]);
            self.input.truncate(start + *read.as_ref().unwrap_or(&0));
            ensure!(read? > 0, "the server closed the connection");
        }
    }

    /// Sends one command and waits for its reply.
    pub(super) fn call(&mut self, line: &[&[u8]]) -> Result<Reply> {
        self.queue(line);
        self.send()?;
        self.reply()
    }
}

/// A reply as a text for people.
pub(super) fn text(reply: &Reply) -> String {
    match reply {
        Reply::Error(text) | Reply::Status(text) | Reply::Bulk(text) => {
            String::from_utf8_lossy(text).into_owned()
        }
        other => format!("{other:?}"),
    }
}
