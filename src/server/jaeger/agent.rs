//! The agent's UDP ports: Thrift messages, one a datagram.
//!
//! A1. Nothing a datagram holds ends the loop; what is not taken is counted, with a reason.
//! A2. Nobody is told: UDP has no answer. So the socket's buffer is large, and what the
//!     kernel drops because it is full is counted too.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::protocol::{SpanFormat, decode_spans};
use crate::runtime::shutdown::Shutdown;
use crate::server::spans::{SpanMetrics, SpanSink, Transport};

/// Longest datagram that is taken; clients keep below it.
pub const MAX_DATAGRAM: usize = 65_000;

/// Room in the kernel for a burst while one datagram is decoded: some seconds of a busy
/// Traefik. The kernel may grant less (`net.core.rmem_max`).
const RECEIVE_BUFFER: usize = 4 << 20;

/// How often the kernel's count of drops is read.
const DROPS_EVERY: Duration = Duration::from_secs(10);

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
    // One byte more than is taken, so that a longer datagram shows.
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    let mut drops = KernelDrops::of(&socket);
    let mut look = tokio::time::interval(DROPS_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = socket.recv(&mut buffer) => match received {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    take(datagram, encoding, &*sink, &metrics);
                }
                Err(error) => {
                    // A failing socket mostly recovers; until then this must not spin.
                    tracing::warn!(%error, transport = transport.name(), "cannot receive datagrams");
                    metrics.malformed(transport, "receive_failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = look.tick() => metrics.kernel_drops(transport, drops.new_drops().await),
            () = shutdown.wait() => break,
        }
    }
    metrics.kernel_drops(transport, drops.new_drops().await);
}

/// Decodes one datagram and hands it on, or counts why not.
fn take<S: SpanSink>(datagram: &[u8], encoding: Encoding, sink: &S, metrics: &SpanMetrics) {
    let (format, transport) = (encoding.format(), encoding.transport());
    if datagram.len() > MAX_DATAGRAM {
        metrics.malformed(transport, "too_large");
        return;
    }
    match decode_spans(format, datagram) {
        Ok(batch) => {
            let spans = batch.spans.len();
            if spans == 0 {
                metrics.accepted(transport, 0);
                return;
            }
            match sink.offer(batch, format, Bytes::copy_from_slice(datagram)) {
                Ok(()) => metrics.accepted(transport, spans),
                Err(refusal) => metrics.refused(transport, refusal.reason, spans),
            }
        }
        Err(error) => {
            tracing::debug!(%error, transport = transport.name(), "datagram is not readable");
            metrics.malformed(transport, error.reason);
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
