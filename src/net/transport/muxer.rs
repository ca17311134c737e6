//! The streams of one admitted connection, as libp2p wants them.
//!
//! A stream that is dropped before it was closed is reset, so that the reader sees an error: an end of
//! file always means that the writer closed the stream. Every byte is counted in the [`Handle`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::VarInt;

use super::{error::Error, gate::Presence, handle::Handle};

type Halves = (quinn::SendStream, quinn::RecvStream);
type Opening = BoxFuture<'static, Result<Halves, quinn::ConnectionError>>;

/// The code of a stream reset, and of a connection closed for no special reason.
const NO_CODE: VarInt = VarInt::from_u32(0);

/// One connection of a swarm.
pub(super) struct Muxer {
    connection: quinn::Connection,
    handle: Handle,
    // Kept between polls: dropping a half-done accept or open would lose its place in the queue.
    inbound: Option<Opening>,
    outbound: Option<Opening>,
    closing: Option<BoxFuture<'static, quinn::ConnectionError>>,
    // Tells the gate when this connection is gone.
    _presence: Option<Presence>,
}

impl Muxer {
    pub(super) fn new(connection: quinn::Connection, handle: Handle, presence: Option<Presence>) -> Self {
        Self { connection, handle, inbound: None, outbound: None, closing: None, _presence: presence }
    }
}

impl StreamMuxer for Muxer {
    type Substream = Substream;
    type Error = Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, Error>> {
        let this = self.get_mut();
        let connection = &this.connection;
        let inbound = this.inbound.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.accept_bi().await }.boxed()
        });
        let halves = ready!(inbound.poll_unpin(cx));
        this.inbound = None;
        let halves = halves.map_err(Error::of_connection)?;
        Poll::Ready(Ok(Substream::new(halves, this.handle.clone())))
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, Error>> {
        let this = self.get_mut();
        let connection = &this.connection;
        let outbound = this.outbound.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.open_bi().await }.boxed()
        });
        let halves = ready!(outbound.poll_unpin(cx));
        this.outbound = None;
        let halves = halves.map_err(Error::of_connection)?;
        Poll::Ready(Ok(Substream::new(halves, this.handle.clone())))
    }

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        // quinn drives the connection in a task of its own, and addresses cannot change: migration is off.
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        let connection = &this.connection;
        let closing = this.closing.get_or_insert_with(|| {
            connection.close(NO_CODE, b"");
            let connection = connection.clone();
            async move { connection.closed().await }.boxed()
        });
        let error = ready!(closing.poll_unpin(cx));
        this.closing = Some(futures::future::ready(error.clone()).boxed());
        match error {
            quinn::ConnectionError::LocallyClosed => Poll::Ready(Ok(())),
            error => Poll::Ready(Err(Error::of_connection(error))),
        }
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        // Streams still held elsewhere would keep the connection open and unwatched.
        self.connection.close(NO_CODE, b"");
    }
}

/// One stream, both ways.
pub(super) struct Substream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    handle: Handle,
    closed: bool,
}

impl Substream {
    fn new((send, recv): Halves, handle: Handle) -> Self {
        Self { send, recv, handle, closed: false }
    }
}

impl AsyncRead for Substream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.recv.poll_read(cx, buf))?;
        self.handle.count_read(read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.send).poll_write(cx, buf))?;
        self.handle.count_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // quinn sends what was written without being told.
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // libp2p closes more than once; finishing a stream that is finished or was stopped is no failure of
        // this call: who must know that bytes arrived waits for an answer.
        if !std::mem::replace(&mut self.closed, true) && self.send.finish().is_err() {
            tracing::trace!("closed a stream that the other side had stopped");
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Substream {
    fn drop(&mut self) {
        if !self.closed && self.send.reset(NO_CODE).is_err() {
            tracing::trace!("dropped a stream that had ended already");
        }
    }
}
