//! The agent's UDP ports: Thrift messages, one a datagram.
//!
//! A1. Nothing a datagram holds ends the loop; what is not taken is counted, with a reason.
//! A2. Nobody is told: UDP has no answer. So the socket's buffer is large, and what the
//!     kernel drops because it is full is counted too.
//! A3. A flood costs other doors nothing: without room, nothing is received, and the kernel
//!     drops what comes; and datagrams that came at once are one append.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::model::trace::SpanBatch;
use crate::protocol::spans::{MESSAGE_HEAD, messages};
use crate::protocol::{SpanFormat, decode_spans};
use crate::runtime::shutdown::Shutdown;
use crate::server::spans::ledger::Outcome;
use crate::server::spans::{RECEIVE_FAILED, SpanMetrics, SpanSink, Transport};

/// Longest datagram that is taken; clients keep below it.
pub const MAX_DATAGRAM: usize = 65_000;

/// Room in the kernel for a burst while one datagram is decoded: some seconds of a busy
/// Traefik. The kernel may grant less (`net.core.rmem_max`).
const RECEIVE_BUFFER: usize = 4 << 20;

/// How often the kernel's count of drops is read.
const DROPS_EVERY: Duration = Duration::from_secs(2);

/// Bytes of datagrams that are taken at once. Each append costs the same, however large: more
/// at once cost less, and hold other tasks up longer (a datagram of 64 KB is decoded in less
/// than a millisecond).
const GROUP: usize = 128 << 10;

/// Datagrams of a group, if they are small.
const GROUP_DATAGRAMS: usize = 512;

/// After less than this the next group is let grow for a moment.
const SMALL_GROUP: usize = 32 << 10;
const MOMENT: Duration = Duration::from_millis(2);

/// Without room, this long nothing is received.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the agent listens; an empty address switches a port off.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentOptions {
    /// Thrift compact: clients for Go, Java, Python, C++; Traefik v2.
    pub compact: String,
    /// Thrift binary: clients for Node.
    pub binary: String,
    /// Thrift compact with Zipkin's spans: clients older than Jaeger's own.
    pub zipkin: String,
    /// Sampling strategies over HTTP.
    pub sampling: String,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            compact: "0.0.0.0:6831".into(),
            binary: "0.0.0.0:6832".into(),
            zipkin: "0.0.0.0:5775".into(),
            sampling: "0.0.0.0:5778".into(),
        }
    }
}

/// What a port's datagrams hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Compact,
    Binary,
    /// Compact as well; its clients speak of spans as Zipkin does.
    Zipkin,
}

impl Encoding {
    fn format(self) -> SpanFormat {
        match self {
            Self::Compact | Self::Zipkin => SpanFormat::ThriftCompactMessage,
            Self::Binary => SpanFormat::ThriftBinaryMessage,
        }
    }

    /// Of several datagrams in one body.
    fn group_format(self) -> SpanFormat {
        match self {
            Self::Compact | Self::Zipkin => SpanFormat::ThriftCompactMessages,
            Self::Binary => SpanFormat::ThriftBinaryMessages,
        }
    }

    fn transport(self) -> Transport {
        match self {
            Self::Compact => Transport::UdpCompact,
            Self::Binary => Transport::UdpBinary,
            Self::Zipkin => Transport::UdpZipkin,
        }
    }
}

/// Opens a socket with a large receive buffer.
pub fn bind(address: &str) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("no address in `{address}`"),
    );
    for address in address.to_socket_addrs()? {
        match bind_to(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Receives until the process ends.
pub async fn run_agent<S: SpanSink>(
    socket: UdpSocket,
    encoding: Encoding,
    sink: Arc<S>,
    metrics: SpanMetrics,
    mut shutdown: Shutdown,
) {
    let transport = encoding.transport();
    let mut group = Group::new();
    let mut drops = KernelDrops::of(&socket);
    let mut look = tokio::time::interval(DROPS_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            readable = socket.readable() => {
                let received = match readable {
                    Ok(()) if !sink.has_room(GROUP) => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    Ok(()) => group.receive(&socket),
                    Err(error) => Err(error),
                };
                if let Err(error) = received {
                    // A failing socket mostly recovers; until then this must not spin.
                    tracing::warn!(%error, transport = transport.name(), "cannot receive datagrams");
                    metrics.malformed(transport, RECEIVE_FAILED);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let bytes = group.bytes();
                take(&mut group, encoding, &*sink, &metrics);
                if bytes < SMALL_GROUP {
                    tokio::time::sleep(MOMENT).await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
            _ = look.tick() => metrics.kernel_drops(transport, drops.new_drops().await),
            () = shutdown.wait() => break,
        }
    }
    metrics.kernel_drops(transport, drops.new_drops().await);
}

/// Datagrams that were received at once, each behind its length, as the journal gets them.
struct Group {
    buffer: Vec<u8>,
    used: usize,
    datagrams: usize,
}

impl Group {
    fn new() -> Self {
        // One byte more than is taken, so that a longer datagram shows.
        let room = GROUP + MESSAGE_HEAD + MAX_DATAGRAM + 1;
        Self {
            buffer: vec![0; room],
            used: 0,
            datagrams: 0,
        }
    }

    fn bytes(&self) -> usize {
        self.used
    }

    /// Takes what is there, without waiting. What came before an error is kept.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        while self.used < GROUP && self.datagrams < GROUP_DATAGRAMS {
            let start = self.used + MESSAGE_HEAD;
            let room = self.buffer.get_mut(start..).unwrap_or_default();
            let room = &mut room[..MAX_DATAGRAM + 1];
            let length = match socket.try_recv(room) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let head = (length as u32).to_le_bytes();
            self.buffer[self.used..start].copy_from_slice(&head);
            self.used = start + length;
            self.datagrams += 1;
        }
        Ok(())
    }

    /// The body of the datagrams that `keep` says yes to, and how many they are.
    fn take(&mut self, mut keep: impl FnMut(&[u8]) -> bool) -> (Bytes, usize) {
        let received = self.buffer.get(..self.used).unwrap_or_default();
        let mut good = Vec::with_capacity(self.used);
        let mut count = 0;
        for datagram in messages(received) {
            // We wrote the lengths ourselves.
            let Ok(datagram) = datagram else { break };
            if keep(datagram) {
                good.extend_from_slice(&(datagram.len() as u32).to_le_bytes());
                good.extend_from_slice(datagram);
                count += 1;
            }
        }
        self.used = 0;
        self.datagrams = 0;
        let mut body = Bytes::from(good);
        // One alone needs no length.
        if count == 1 {
            body.advance(MESSAGE_HEAD);
        }
        (body, count)
    }
}

/// Decodes a group and hands it on, or counts why not.
fn take<S: SpanSink>(group: &mut Group, encoding: Encoding, sink: &S, metrics: &SpanMetrics) {
    let transport = encoding.transport();
    let mut batch = SpanBatch::default();
    let mut empty = 0;
    let (body, datagrams) = group.take(|datagram| {
        if datagram.len() > MAX_DATAGRAM {
            metrics.malformed(transport, "too_large");
            return false;
        }
        match decode_spans(encoding.format(), datagram) {
            Ok(mut decoded) if !decoded.spans.is_empty() => {
                batch.spans.append(&mut decoded.spans);
                true
            }
            Ok(_) => {
                empty += 1;
                false
            }
            Err(error) => {
                tracing::debug!(%error, transport = transport.name(), "datagram is not readable");
                metrics.malformed(transport, error.reason);
                false
            }
        }
    });
    if empty > 0 {
        metrics.accepted(transport, empty, 0);
    }
    if datagrams == 0 {
        return;
    }
    let format = match datagrams {
        1 => encoding.format(),
        _ => encoding.group_format(),
    };
    let (seen, spans) = (metrics.look(&batch), batch.spans.len());
    match sink.offer(batch, format, body) {
        Ok(()) => {
            metrics.became(transport, &seen, Outcome::Kept);
            metrics.accepted(transport, datagrams, spans);
        }
        Err(refusal) => {
            metrics.became(transport, &seen, Outcome::Dropped);
            metrics.refused(transport, refusal.reason, datagrams, spans);
        }
    }
}

/// The kernel's count of datagrams dropped at a socket.
struct KernelDrops {
    /// The socket's inode, by which the kernel's table names it.
    inode: Option<u64>,
    seen: u64,
}

impl KernelDrops {
    fn of(socket: &UdpSocket) -> Self {
        Self {
            inode: rustix::fs::fstat(socket.as_fd())
                .ok()
                .map(|stat| stat.st_ino),
            seen: 0,
        }
    }

    /// Drops since the last call.
    async fn new_drops(&mut self) -> u64 {
        let Some(inode) = self.inode else { return 0 };
        for table in ["/proc/net/udp", "/proc/net/udp6"] {
            // No table, no count: not every system has one.
            let Ok(text) = tokio::fs::read_to_string(table).await else {
                continue;
            };
            if let Some(total) = drops_of(&text, inode) {
                let new = total.saturating_sub(self.seen);
                self.seen = total;
                return new;
            }
        }
        0
    }
}

/// The last column of the line whose tenth is `inode`.
fn drops_of(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let found: u64 = columns.nth(9)?.parse().ok()?;
        if found == inode {
            columns.next_back()?.parse().ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests;
