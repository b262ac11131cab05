//! A client that says exactly what a test wants said.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::resp::{Reply, ReplyDecoder, RespVersion};

/// No reply of a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a router under test.
pub struct Client {
    pub stream: TcpStream,
    buffer: BytesMut,
    decoder: ReplyDecoder,
}

impl Client {
    pub async fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the router listens");
        Client { stream, buffer: BytesMut::new(), decoder: ReplyDecoder::new(RespVersion::Resp2) }
    }

    /// Reads RESP3 from now on (after HELLO 3).
    pub fn resp3(&mut self) {
        self.decoder = ReplyDecoder::new(RespVersion::Resp3);
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the connection is open");
    }

    /// Sends command lines, a space between arguments, all in one write.
    pub async fn send_lines(&mut self, lines: &[&str]) {
        let mut bytes = Vec::new();
        for line in lines {
            let args: Vec<&str> = line.split(' ').collect();
            bytes.extend(format!("*{}\r\n", args.len()).into_bytes());
            for arg in args {
                bytes.extend(format!("${}\r\n{arg}\r\n", arg.len()).into_bytes());
            }
        }
        self.send(bytes).await;
    }

    /// The next reply; `None` if the router closed the connection.
    pub async fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.decoder.decode(&mut self.buffer).expect("valid RESP") {
                return Some(reply);
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("a reply in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Runs a command line; its reply in one line of text.
    pub async fn run(&mut self, line: &str) -> String {
        self.send_lines(&[line]).await;
        match self.reply().await {
            Some(reply) => show(&reply),
            None => "(closed)".to_owned(),
        }
    }

    /// The next replies in one line of text each.
    pub async fn replies(&mut self, count: usize) -> Vec<String> {
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.push(self.reply().await.map_or("(closed)".to_owned(), |reply| show(&reply)));
        }
        replies
    }

    /// Whether nothing comes for a moment: for what must *not* be answered yet.
    pub async fn is_silent_for(&mut self, moment: Duration) -> bool {
        tokio::time::timeout(moment, self.reply()).await.is_err()
    }
}

/// A reply in one line of text.
pub fn show(reply: &Reply) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = |items: &[Reply]| items.iter().map(show).collect::<Vec<_>>().join(" ");
    match reply {
        Reply::Simple(line) => (*line).to_owned(),
        Reply::Status(line) | Reply::Bulk(line) => text(line),
        Reply::Error(line) => text(line),
        Reply::Integer(n) => n.to_string(),
        Reply::Null | Reply::NullArray => "(nil)".to_owned(),
        Reply::Verbatim { text: body, .. } => text(body),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) | Reply::Sequence(items) => {
            format!("[{}]", all(items))
        }
        Reply::Map(pairs) => {
            let pair = |(k, v): &(Reply, Reply)| format!("{}={}", show(k), show(v));
            format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        other => format!("{other:?}"),
    }
}
