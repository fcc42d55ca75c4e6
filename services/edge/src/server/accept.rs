//! The door of the listener: who may hold how many connections, and how long one may keep us waiting for its first words.
//!
//! The HTTP library bounds how long the head of a request may take, but only once it knows the version of HTTP, for which
//! it waits without end: [`Guarded`] bounds that.

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

use crate::access::quota::{Place, Places};
use crate::metrics;

/// After so many bytes the version of HTTP is known, and the library's own deadlines hold.
const PREFACE: usize = 24;

/// Lets connections in, as far as their address has places left.
#[derive(Clone, Debug)]
pub(crate) struct Gate<A> {
    inner: A,
    places: Places,
    patience: Duration,
}

impl<A> Gate<A> {
    /// `patience` is how long a connection may take to say its first words.
    pub(crate) fn new(inner: A, places: Places, patience: Duration) -> Self {
        Self {
            inner,
            places,
            patience,
        }
    }
}

impl<A, S> Accept<TcpStream, S> for Gate<A>
where
    A: Accept<
            TcpStream,
            S,
            Stream: Send + 'static,
            Service: Send + 'static,
            Future: Send + 'static,
        >,
{
    type Stream = Guarded<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let entered = stream
            .peer_addr()
            .and_then(|address| self.enter(address))
            // What is told is small and shall not wait for more.
            .and_then(|place| stream.set_nodelay(true).map(|()| place));
        match entered {
            // Nobody asks for the error: the connection is closed.
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(place) => {
                let (accepted, patience) = (self.inner.accept(stream, service), self.patience);
                Box::pin(async move {
                    let (stream, service) = accepted.await?;
                    Ok((Guarded::new(stream, place, patience), service))
                })
            }
        }
    }
}

impl<A> Gate<A> {
    fn enter(&self, address: SocketAddr) -> io::Result<Place> {
        self.places.enter(address.ip()).map_err(|error| {
            metrics::refused_connection();
            io::Error::new(ErrorKind::ConnectionRefused, error.reply)
        })
    }
}

/// A connection that must begin to say what it wants.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    inner: S,
    /// Until the first bytes are here, or something was answered.
    first: Option<(Pin<Box<Sleep>>, usize)>,
    _place: Place,
}

impl<S> Guarded<S> {
    fn new(inner: S, place: Place, patience: Duration) -> Self {
        Self {
            inner,
            first: Some((Box::pin(sleep(patience)), 0)),
            _place: place,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
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
        if *seen >= PREFACE {
            this.first = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
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
