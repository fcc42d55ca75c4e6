//! The accept filter of the listener: connections per address, and a timeout for the first bytes of each.
//!
//! The HTTP library bounds how long the head of a request may take, but only once it knows the version of HTTP, for which
//! it waits without end: [`FirstByteTimeout`] bounds that.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::access::quota::{ConnectionQuota, QuotaPermit};
use crate::metrics;

/// After so many bytes the version of HTTP is known, and the library's own deadlines hold.
const PREFACE_BYTES: usize = 24;

/// Lets connections in, as far as their address has places left.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimiter<A> {
    inner: A,
    quota: ConnectionQuota,
    timeout: Duration,
}

impl<A> ConnectionLimiter<A> {
    /// `timeout` is how long a connection may take to send its first bytes.
    pub(crate) fn new(inner: A, quota: ConnectionQuota, timeout: Duration) -> Self {
        Self {
            inner,
            quota,
            timeout,
        }
    }
}

impl<A, S> Accept<TcpStream, S> for ConnectionLimiter<A>
where
    A: Accept<
            TcpStream,
            S,
            Stream: Send + 'static,
            Service: Send + 'static,
            Future: Send + 'static,
        >,
{
    type Stream = FirstByteTimeout<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let acquired = stream
            .peer_addr()
            .and_then(|address| self.acquire(address))
            // Messages are small and shall not wait for more.
            .and_then(|permit| stream.set_nodelay(true).map(|()| permit));
        match acquired {
            // The error is not read: the connection is closed.
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(permit) => {
                let (accepted, timeout) = (self.inner.accept(stream, service), self.timeout);
                Box::pin(async move {
                    let (stream, service) = accepted.await?;
                    Ok((FirstByteTimeout::new(stream, permit, timeout), service))
                })
            }
        }
    }
}

impl<A> ConnectionLimiter<A> {
    fn acquire(&self, address: SocketAddr) -> io::Result<QuotaPermit> {
        self.quota.acquire(address.ip()).map_err(|error| {
            metrics::refused_connection();
            io::Error::new(ErrorKind::ConnectionRefused, error.reply)
        })
    }
}

/// A connection that must send its request in time.
#[derive(Debug)]
pub(crate) struct FirstByteTimeout<S> {
    inner: S,
    /// Until the first bytes are here, or something was answered.
    first: Option<(Pin<Box<Sleep>>, usize)>,
    _permit: QuotaPermit,
}

impl<S> FirstByteTimeout<S> {
    fn new(inner: S, permit: QuotaPermit, timeout: Duration) -> Self {
        Self {
            inner,
            first: Some((Box::pin(sleep(timeout)), 0)),
            _permit: permit,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstByteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let Some((deadline, seen)) = &mut this.first else {
            return read;
        };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        *seen += buffer.filled().len() - before;
        if *seen >= PREFACE_BYTES {
            this.first = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstByteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.first = None;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.first = None;
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
