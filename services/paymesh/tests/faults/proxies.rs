//! The ways between regions as TCP proxies: for machines that give a test no network of its own.
//!
//! Each region dials each other region at a proxy's address, which it finds in a configuration of its own. What is on its way
//! when a link is cut is kept and goes on when it heals, as TCP itself sees to by sending again. What a proxy cannot do: a
//! connection that is made over a cut link looks made to the one that dials, and stays silent; and a sender hears at once that
//! its bytes have left, up to what the proxy holds.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::links::{Link, Links};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks of one connection on their way at most, each direction.
const CHUNKS_MAX: usize = 256;

/// The proxies of a mesh. They end with it.
#[derive(Debug)]
pub(crate) struct Proxies {
    _tasks: JoinSet<()>,
    addresses: Vec<Vec<String>>,
}

impl Proxies {
    /// Proxies between regions that listen at these addresses.
    pub(crate) async fn start(links: &Arc<Links>, targets: &[String]) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        let mut addresses = vec![targets.to_vec(); links.regions()];
        for (from, to) in links.ways() {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses[from][to] = listener.local_addr()?.to_string();
            tasks.spawn(accept(listener, targets[to].clone(), links.watch(from, to), links.watch(to, from)));
        }
        Ok(Self { _tasks: tasks, addresses })
    }

    /// Where a region finds another.
    pub(crate) fn address(&self, from: usize, to: usize) -> &str {
        &self.addresses[from][to]
    }
}

async fn accept(listener: TcpListener, target: String, there: watch::Receiver<Link>, back: watch::Receiver<Link>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(carry(stream, target.clone(), there.clone(), back.clone()));
                }
                // No files left, or a connection that went as it came: the next may be well.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, to its end.
async fn carry(dialled: TcpStream, target: String, mut there: watch::Receiver<Link>, mut back: watch::Receiver<Link>) {
    // The handshake goes there and back.
    let round_trip = there.borrow().delay + back.borrow().delay;
    for link in [&mut there, &mut back] {
        if link.wait_for(|link| !link.cut).await.is_err() {
            return;
        }
    }
    tokio::time::sleep(round_trip).await;
    // Nobody listens there: the one that dialled finds its connection closed.
    let Ok(answering) = TcpStream::connect(target).await else { return };
    let _ = (dialled.set_nodelay(true), answering.set_nodelay(true));
    let (dialled_reads, dialled_writes) = dialled.into_split();
    let (answering_reads, answering_writes) = answering.into_split();
    // The end of one direction ends both, so that a process that died is seen by the other side.
    tokio::select! {
        _ = one_way(dialled_reads, answering_writes, there) => {}
        _ = one_way(answering_reads, dialled_writes, back) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>) -> io::Result<()> {
    let mut on_its_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut open = true;
    let mut free_at = Instant::now();
    loop {
        let due = on_its_way.front().map(|(due, _)| (*due).max(free_at));
        let now: Link = *link.borrow_and_update();
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        tokio::select! {
            read = from.read_buf(&mut chunk), if open && on_its_way.len() < CHUNKS_MAX => {
                open = read? > 0;
                on_its_way.push_back((Instant::now() + now.delay, chunk));
            }
            () = sleep_until(due.unwrap_or(free_at)), if due.is_some() && !now.cut => {
                let Some((_, chunk)) = on_its_way.pop_front() else { continue };
                if chunk.is_empty() {
                    return to.shutdown().await;
                }
                to.write_all(&chunk).await?;
                free_at = Instant::now() + now.time_for(chunk.len());
            }
            changed = link.changed() => if changed.is_err() {
                return Ok(());
            },
        }
    }
}
