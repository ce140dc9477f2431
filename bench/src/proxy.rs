//! A TCP proxy that counts what goes through it, for bytes on the wire.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinSet,
};

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens, on loopback.
    pub(crate) port: u16,
    bytes: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens at a free port, and carries what comes to `target` and back.
    pub(crate) async fn start(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
        let port = listener.local_addr()?.port();
        let bytes = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], target)), bytes.clone()));
        Ok(Self { port, bytes, _tasks: tasks })
    }

    /// Bytes that went through it, both ways: what TCP carried, without the headers of TCP and below.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, bytes: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        // Who cannot be reached shows as a connection that closes at once.
        let Ok(far) = TcpStream::connect(target).await else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        connections.spawn(carry(near_in, far_out, bytes.clone()));
        connections.spawn(carry(far_in, near_out, bytes.clone()));
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes: Arc<AtomicU64>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count) = from.read(&mut buffer).await
        && count > 0
    {
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
