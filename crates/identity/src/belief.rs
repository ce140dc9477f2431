//! What an open connection rests on: that an authority which is believed vouches for its other end. Authorities are taken out of a file
//! because somebody else has their key; a connection that was made before must not outlive that.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client;

use crate::Identity;

/// Why a connection is believed, looked at again whenever other authorities are. Costs a comparison of two numbers otherwise.
#[derive(Debug)]
pub(crate) struct Belief {
    identity: Identity,
    /// Which reading of the authorities vouched for the other end last.
    reading: u64,
    /// What the other end showed; nothing where it did not have to.
    chain: Arc<[CertificateDer<'static>]>,
    side: Side,
}

/// What the other end is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Belief {
    /// In what the other end is still to show, by the authorities of now.
    pub(crate) fn new(identity: &Identity, side: Side) -> Self {
        Self { identity: identity.clone(), reading: identity.authorities_reading(), chain: [].into(), side }
    }

    /// What the other end has shown, its own first.
    pub(crate) fn shown(&mut self, chain: Option<&[CertificateDer<'static>]>) {
        self.chain = chain.unwrap_or_default().into();
    }

    /// An error: nobody vouches for the other end any more.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        let reading = self.identity.authorities_reading();
        if reading == self.reading {
            return Ok(());
        }
        if !self.chain.is_empty() && !self.identity.vouched_for(&self.chain, self.side, SystemTime::now()) {
            let what = "no authority that is believed now vouches for the other end's certificate";
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, what));
        }
        self.reading = reading;
        Ok(())
    }
}

/// A connection that was made. One to a node breaks when no authority vouches for that any more.
#[derive(Debug)]
pub struct Dialed {
    stream: client::TlsStream<TcpStream>,
    belief: Option<Belief>,
}

impl Dialed {
    /// A caller's. What it comes to believe later is for its next connection: it knows whom it called.
    pub(crate) fn once(stream: client::TlsStream<TcpStream>) -> Self {
        Self { stream, belief: None }
    }

    pub(crate) fn believed(stream: client::TlsStream<TcpStream>, mut belief: Belief) -> Self {
        belief.shown(stream.get_ref().1.peer_certificates());
        Self { stream, belief: Some(belief) }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut client::TlsStream<TcpStream>>> {
        self.belief.as_mut().map_or(Ok(()), Belief::check)?;
        Ok(Pin::new(&mut self.stream))
    }
}

impl AsyncRead for Dialed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
