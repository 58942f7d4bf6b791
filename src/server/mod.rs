//! Whoever connects to us: sockets bound up front, connections served, drained at the end.
//!
//! All sockets are bound before anything else starts, so that a port in use is found while
//! nothing has happened yet, and every one of them is named.

pub mod admin;
mod body;
pub mod error;
pub mod grpc;
pub mod http;
pub mod jaeger;
pub mod loki;
mod media_type;
pub mod notify;
pub mod otlp;
pub mod signals;
pub mod spans;
mod unread;
pub mod zipkin;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::runtime::shutdown::Shutdown;

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 1024;
/// For the UDP sockets: a burst of datagrams while the process is busy.
const UDP_RECEIVE_BUFFER: usize = 4 << 20;
/// How long a client may take to send a request's head, or leave a connection unused.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// Of one HTTP/2 connection; more wait.
const HTTP2_STREAMS: u32 = 256;
/// How often a silent HTTP/2 peer is asked whether it is there, and how long it may take.
const HTTP2_PING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// A request's head, larger ones are refused.
const HEAD_BYTES: u32 = 64 << 10;

/// Bounds of serving.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Connections at a time, over all listeners; further ones wait to be accepted.
    pub max_connections: usize,
    /// At the end, requests in flight get this long.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            drain: Duration::from_secs(5),
        }
    }
}

/// Addresses that could not be bound, one per line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct BindErrors(Vec<String>);

/// Bound sockets by the key of their address, such as `jaeger.collector.http`.
pub struct Listeners {
    tcp: Vec<(&'static str, TcpListener)>,
    udp: Vec<(&'static str, UdpSocket)>,
    options: Options,
    connections: Arc<Semaphore>,
}

impl Listeners {
    /// Binds everything that has an address. Needs a runtime.
    pub fn bind(
        tcp: &[(&'static str, Option<SocketAddr>)],
        udp: &[(&'static str, Option<SocketAddr>)],
        options: Options,
    ) -> Result<Self, BindErrors> {
        let mut errors = Vec::new();
        let tcp = bind_each(tcp, &mut errors, bind_tcp);
        let udp = bind_each(udp, &mut errors, bind_udp);
        if !errors.is_empty() {
            return Err(BindErrors(errors));
        }
        let connections = Arc::new(Semaphore::new(options.max_connections.max(1)));
        Ok(Self {
            tcp,
            udp,
            options,
            connections,
        })
    }

    /// The address bound for `key`: the real port where 0 was asked for.
    pub fn address(&self, key: &str) -> Option<SocketAddr> {
        let tcp = self
            .tcp
            .iter()
            .find(|(k, _)| *k == key)
            .map(|(_, s)| s.local_addr());
        let udp = || {
            self.udp
                .iter()
                .find(|(k, _)| *k == key)
                .map(|(_, s)| s.local_addr())
        };
        tcp.or_else(udp)?.ok()
    }

    /// Every key with its address.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let keys = self
            .tcp
            .iter()
            .map(|(k, _)| *k)
            .chain(self.udp.iter().map(|(k, _)| *k));
        keys.filter_map(|key| Some((key, self.address(key)?)))
            .collect()
    }

    /// Hands out a UDP socket, once.
    pub fn take_udp(&mut self, key: &str) -> Option<UdpSocket> {
        let at = self.udp.iter().position(|(k, _)| *k == key)?;
        Some(self.udp.swap_remove(at).1)
    }

    /// Serves `router` on the listener of `key`, HTTP/1 and HTTP/2 (gRPC included) on one
    /// port. The task ends when `shutdown` came and requests in flight are answered, or
    /// their time is up. `None`: the listener is switched off.
    pub fn serve(
        &mut self,
        key: &str,
        router: Router,
        shutdown: Shutdown,
    ) -> Option<JoinHandle<()>> {
        let at = self.tcp.iter().position(|(k, _)| *k == key)?;
        let (key, listener) = self.tcp.swap_remove(at);
        let (options, connections) = (self.options, self.connections.clone());
        Some(tokio::spawn(accept(
            key,
            listener,
            router,
            options,
            connections,
            shutdown,
        )))
    }
}

fn bind_each<T>(
    wanted: &[(&'static str, Option<SocketAddr>)],
    errors: &mut Vec<String>,
    bind: fn(SocketAddr) -> io::Result<T>,
) -> Vec<(&'static str, T)> {
    let mut bound = Vec::new();
    for (key, address) in wanted {
        let Some(address) = address else { continue };
        match bind(*address) {
            Ok(socket) => bound.push((*key, socket)),
            Err(error) => errors.push(describe(key, *address, &error)),
        }
    }
    bound
}

fn describe(key: &str, address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{key}: address {address} is in use; stop who has it, set another, or \"\" for none"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{key}: address {address} is not allowed; ports below 1024 need privileges")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{key}: address {address} is none of this machine's")
        }
        _ => format!("{key}: address {address} can't be bound: {error}"),
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    // Connections of an earlier process may linger; that must not keep us from starting.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    // The kernel may give less (net.core.rmem_max); that is no reason not to start.
    if let Err(error) = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER) {
        tracing::warn!(%address, %error, "receive buffer stays small");
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

async fn accept(
    key: &'static str,
    listener: TcpListener,
    router: Router,
    options: Options,
    connections: Arc<Semaphore>,
    mut shutdown: Shutdown,
) {
    let mut running = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.wait() => break,
            accepted = async {
                // Never closed, so this can't fail; without a permit we'd just not accept.
                let permit = connections.clone().acquire_owned().await.ok()?;
                Some((permit, listener.accept().await))
            } => accepted,
        };
        while running.try_join_next().is_some() {}
        let Some((permit, accepted)) = accepted else {
            break;
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), options, shutdown.clone());
                running.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of handles, most likely: waiting gives others time to close theirs.
                tracing::warn!(key, %error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = async { while running.join_next().await.is_some() {} };
    // Each connection keeps the limit itself; this one is for the case that one does not.
    let patience = options.drain + Duration::from_secs(1);
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!(key, "connections cut off at the end");
    }
}

async fn connection(stream: TcpStream, router: Router, options: Options, mut shutdown: Shutdown) {
    // Answers are small and waited for; failing means that the peer is gone.
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(HTTP2_PING.0)
        .keep_alive_timeout(HTTP2_PING.1)
        .max_header_list_size(HEAD_BYTES);
    let service = TowerToHyperService::new(router);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = shutdown.wait() => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(options.drain, served).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        // Peers that go away or speak nonsense are their own business.
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::runtime::shutdown;

    fn any_port() -> Option<SocketAddr> {
        Some(([127, 0, 0, 1], 0).into())
    }

    fn router() -> Router {
        Router::new().route("/", get(|| async { "hello" })).route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                "slow"
            }),
        )
    }

    async fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn an_address_in_use_is_told_with_its_key() {
        let options = Options::default();
        let first = Listeners::bind(&[("a.b", any_port())], &[("a.u", any_port())], options)
            .expect("free ports");
        let (taken, taken_udp) = (first.address("a.b"), first.address("a.u"));
        let tcp = [("off", None), ("c.d", taken)];
        let Err(errors) = Listeners::bind(&tcp, &[("c.u", taken_udp)], options) else {
            panic!("both are in use");
        };
        let text = errors.to_string();
        let expected = format!("c.d: address {} is in use", taken.expect("bound"));
        assert!(
            text.contains(&expected) && text.contains("\nc.u: address "),
            "{text}"
        );
    }

    #[tokio::test]
    async fn requests_in_flight_are_answered_at_the_end_and_new_ones_refused() {
        let mut listeners =
            Listeners::bind(&[("x", any_port())], &[], Options::default()).expect("free port");
        let address = listeners.address("x").expect("bound");
        let (trigger, shutdown) = shutdown::channel();
        assert!(listeners.serve("off", router(), shutdown.clone()).is_none());
        let served = listeners.serve("x", router(), shutdown).expect("bound");
        assert!(ask(address, "/").await.expect("answer").ends_with("hello"));
        let slow = tokio::spawn(async move { ask(address, "/slow").await });
        // An unused connection must not hold the end up.
        let _idle = TcpStream::connect(address).await.expect("connects");
        tokio::time::sleep(Duration::from_millis(100)).await;
        trigger.fire();
        let answer = slow.await.expect("no panic").expect("answer");
        assert!(answer.ends_with("slow"), "{answer}");
        tokio::time::timeout(Duration::from_secs(7), served)
            .await
            .expect("ends")
            .expect("ok");
        assert!(ask(address, "/").await.is_err());
    }

    #[tokio::test]
    async fn connections_beyond_the_cap_wait() {
        let options = Options {
            max_connections: 1,
            ..Options::default()
        };
        let mut listeners = Listeners::bind(&[("x", any_port())], &[], options).expect("free");
        let address = listeners.address("x").expect("bound");
        let (_trigger, shutdown) = shutdown::channel();
        listeners.serve("x", router(), shutdown).expect("bound");
        let first = TcpStream::connect(address).await.expect("connects");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let second = tokio::spawn(async move { ask(address, "/").await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!second.is_finished());
        drop(first);
        assert!(
            second
                .await
                .expect("no panic")
                .expect("answer")
                .ends_with("hello")
        );
    }

    #[tokio::test]
    async fn http_2_with_prior_knowledge_is_served_on_the_same_port() {
        let mut listeners =
            Listeners::bind(&[("x", any_port())], &[], Options::default()).expect("free port");
        let address = listeners.address("x").expect("bound");
        let (_trigger, shutdown) = shutdown::channel();
        listeners.serve("x", router(), shutdown).expect("bound");
        let mut stream = TcpStream::connect(address).await.expect("connects");
        // The preface and an empty SETTINGS frame; the server answers with its own SETTINGS.
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .expect("write");
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .expect("write");
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("a frame");
        assert_eq!(head[3], 4, "a SETTINGS frame: {head:?}");
    }
}
