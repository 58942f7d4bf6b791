use std::time::Instant;

use super::*;
use crate::ingest::refusal::RefusalKind;
use crate::runtime::shutdown;
use crate::server::spans::memory::{Memory, fixture, metrics, sink};
use crate::telemetry::metrics::Metrics;

struct Running {
    address: SocketAddr,
    client: UdpSocket,
    sink: Arc<Memory>,
    metrics: Metrics,
    trigger: shutdown::Trigger,
    task: tokio::task::JoinHandle<()>,
}

async fn start(encoding: Encoding) -> Running {
    let socket = bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (sink, (metrics, counters)) = (sink(), metrics());
    let (trigger, wait) = shutdown::channel();
    let task = tokio::spawn(run_agent(socket, encoding, sink.clone(), counters, wait));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    Running {
        address,
        client,
        sink,
        metrics,
        trigger,
        task,
    }
}

impl Running {
    async fn send(&self, datagram: &[u8]) {
        self.client.send_to(datagram, self.address).await.unwrap();
    }

    /// Waits until a line of the metrics is there.
    #[track_caller]
    fn sees(&self, line: &str) -> impl Future<Output = ()> {
        let until = Instant::now() + Duration::from_secs(10);
        async move {
            while !self.metrics.render().lines().any(|found| found == line) {
                assert!(
                    Instant::now() < until,
                    "no `{line}` in\n{}",
                    self.metrics.render()
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

#[tokio::test]
async fn captured_datagrams_reach_the_sink_as_received() {
    let agent = start(Encoding::Compact).await;
    agent.send(&fixture("captured/go-traefik64.bin")).await;
    agent
        .sees(r#"watchpost_spans_accepted_total{transport="udp_compact"} 2"#)
        .await;
    let (spans, format) = agent.sink.only();
    assert_eq!(
        (&*spans[0].process.service, format),
        ("traefik", SpanFormat::ThriftCompactMessage)
    );

    let agent = start(Encoding::Binary).await;
    agent.send(&fixture("captured/node-udp.bin")).await;
    agent
        .sees(r#"watchpost_span_messages_accepted_total{transport="udp_binary"} 1"#)
        .await;
    assert_eq!(agent.sink.only().1, SpanFormat::ThriftBinaryMessage);
}

#[tokio::test]
async fn after_each_malformed_datagram_a_good_one_is_still_taken() {
    let agent = start(Encoding::Compact).await;
    let index: serde_json::Value =
        serde_json::from_slice(&fixture("malformed/index.json")).unwrap();
    let mut good = 0;
    for case in index.as_array().unwrap() {
        agent
            .send(&fixture(&format!(
                "malformed/{}",
                case["file"].as_str().unwrap()
            )))
            .await;
        good += usize::from(case["expect"].as_str().unwrap().contains("are accepted"));
        agent.send(&fixture("captured/go-traefik64.bin")).await;
        good += 1;
        let line = format!(
            r#"watchpost_spans_accepted_total{{transport="udp_compact"}} {}"#,
            2 * good
        );
        agent.sees(&line).await;
    }
    let refused: usize = agent
        .metrics
        .render()
        .lines()
        .filter(|line| line.starts_with("watchpost_span_messages_refused_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(refused, 10);
    agent.sees(r#"watchpost_span_messages_refused_total{transport="udp_compact",reason="unknown_method"} 1"#).await;
}

#[tokio::test]
async fn datagrams_without_room_or_too_long_are_counted_as_dropped() {
    let agent = start(Encoding::Compact).await;
    agent.sink.refuse(RefusalKind::Unavailable);
    agent.send(&fixture("captured/go-traefik64.bin")).await;
    agent
        .sees(r#"watchpost_spans_refused_total{transport="udp_compact",reason="no_room"} 2"#)
        .await;
    agent.send(&vec![0; MAX_DATAGRAM + 1]).await;
    agent.sees(r#"watchpost_span_messages_refused_total{transport="udp_compact",reason="too_large"} 1"#).await;
}

#[tokio::test]
async fn the_end_of_the_process_ends_the_loop() {
    let agent = start(Encoding::Compact).await;
    agent.trigger.fire();
    tokio::time::timeout(Duration::from_secs(10), agent.task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_the_kernel_drops_is_counted() {
    let socket = bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut drops = KernelDrops::of(&socket);
    if drops.inode.is_none() || !std::path::Path::new("/proc/net/udp").exists() {
        return;
    }
    assert_eq!(drops.new_drops().await, 0);
    // A small buffer, and nobody who reads.
    socket2::SockRef::from(&socket)
        .set_recv_buffer_size(4096)
        .unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..100 {
        client.send_to(&[0; 1000], address).await.unwrap();
    }
    let dropped = drops.new_drops().await;
    assert!((50..100).contains(&dropped), "{dropped}");
    assert_eq!(drops.new_drops().await, 0);
}

#[test]
fn drops_are_the_last_column_of_the_sockets_line() {
    let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  340: 00000000:1AAF 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17
  341: 00000000:1AB0 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
";
    assert_eq!(drops_of(table, 4711), Some(17));
    assert_eq!(drops_of(table, 4712), Some(0));
    assert_eq!(drops_of(table, 17), None);
    assert_eq!(drops_of("", 1), None);
}

#[tokio::test]
async fn spans_of_zipkin_are_taken_on_every_port() {
    // emitZipkinBatch with one span: trace 5, name `n`, id 6, received at 7 µs by `s`.
    let mut datagram = b"\x82\x21\x00\x0femitZipkinBatch".to_vec();
    datagram.extend_from_slice(&[0x19, 0x1c]); // field 1: list of one struct
    datagram.extend_from_slice(&[0x16, 10, 0x28, 1, b'n', 0x16, 12]);
    datagram.extend_from_slice(&[0x29, 0x1c]); // field 6: annotations
    datagram.extend_from_slice(&[0x16, 14, 0x18, 2, b's', b'r', 0x1c]); // host: a struct
    datagram.extend_from_slice(&[0x38, 1, b's', 0, 0]);
    datagram.extend_from_slice(&[0, 0]);
    for (encoding, transport) in [
        (Encoding::Zipkin, "udp_zipkin"),
        (Encoding::Compact, "udp_compact"),
    ] {
        let agent = start(encoding).await;
        agent.send(&datagram).await;
        let line = format!(r#"watchpost_spans_accepted_total{{transport="{transport}"}} 1"#);
        agent.sees(&line).await;
        let (spans, format) = agent.sink.only();
        assert_eq!(format, SpanFormat::ThriftCompactMessage);
        let span = &spans[0];
        assert_eq!((&*span.process.service, &*span.operation), ("s", "n"));
        assert_eq!((span.trace_id.0, span.span_id.0), (5, 6));
        assert_eq!((span.start, span.kind()), (7_000, "server"));
    }
}
