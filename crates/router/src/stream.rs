//! What a connection is read from and written to: a socket, or memory within the process.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

/// See the module's text.
#[derive(Debug)]
pub(crate) enum Stream {
    Socket(TcpStream),
    Memory(DuplexStream),
}

impl Stream {
    pub(crate) fn is_socket(&self) -> bool {
        matches!(self, Stream::Socket(_))
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        free: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Stream::Socket(socket) => Pin::new(socket).poll_read(cx, free),
            Stream::Memory(memory) => Pin::new(memory).poll_read(cx, free),
        }
    }

    /// Writes what goes without waiting, or fails with [`io::ErrorKind::WouldBlock`].
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => socket.try_write(bytes),
            Stream::Memory(memory) => {
                let mut cx = Context::from_waker(Waker::noop());
                match Pin::new(memory).poll_write(&mut cx, bytes) {
                    Poll::Ready(written) => written,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// The same of several slices, of which some may be left.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => socket.try_write_vectored(slices),
            Stream::Memory(_) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                first.map_or(Ok(0), |first| self.try_write(first))
            }
        }
    }

    /// Resolves when there may be room to write.
    pub(crate) async fn writable(&mut self) -> io::Result<()> {
        match self {
            Stream::Socket(socket) => socket.writable().await,
            // Writing nothing waits for room all the same.
            Stream::Memory(memory) => {
                std::future::poll_fn(|cx| Pin::new(&mut *memory).poll_write(cx, &[]))
                    .await
                    .map(drop)
            }
        }
    }
}
