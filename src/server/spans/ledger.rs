//! What came in and was kept, by service, under the names that Jaeger's dashboards and alerts
//! ask for.
//!
//! Services beyond [`MAX_SERVICES`] are counted together, as Jaeger does: a name that holds an
//! id would make endless many.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::Transport;
use super::seen::{SamplerType, Seen};

/// Services that are counted by name.
const MAX_SERVICES: usize = 1_000;
/// The rest; Jaeger's word.
const OTHERS: &str = "other-services";

/// Jaeger's words for a door: format and transport.
const DOORS: [(&str, &str); 6] = [
    ("proto", "udp"),
    ("jaeger", "http"),
    ("proto", "grpc"),
    ("otlp", "http"),
    ("otlp", "grpc"),
    ("zipkin", "http"),
];

fn door_of(transport: Transport) -> usize {
    match transport {
        Transport::UdpCompact | Transport::UdpBinary | Transport::UdpZipkin => 0,
        Transport::JaegerHttp => 1,
        Transport::JaegerGrpc | Transport::StorageGrpc | Transport::StorageArchive => 2,
        Transport::OtlpHttp => 3,
        Transport::OtlpGrpc | Transport::StorageOtlp => 4,
        Transport::ZipkinHttp => 5,
    }
}

/// The agent's sockets: model, protocol.
const SOCKETS: [(Transport, &str, &str); 3] = [
    (Transport::UdpCompact, "jaeger", "compact"),
    (Transport::UdpBinary, "jaeger", "binary"),
    (Transport::UdpZipkin, "zipkin", "compact"),
];

/// Upper bounds of the time that keeping took, seconds.
const SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What became of a message that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Kept,
    /// Its sender was told.
    Refused,
    /// Its sender can't be told: a datagram.
    Dropped,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    Processed,
    /// No room, in the kernel or here.
    Dropped,
    Unreadable,
    ReceiveFailed,
}

#[derive(Default)]
pub struct Ledger {
    services: Mutex<HashMap<Box<str>, Box<Counts>>>,
    sockets: [[AtomicU64; 4]; SOCKETS.len()],
    dropped_spans: AtomicU64,
    saves: [AtomicU64; SECONDS.len() + 1],
    save_micros: AtomicU64,
}

/// Of one service; the first index is the door, `[2]` is without and with the debug flag.
#[derive(Clone, Copy, Default)]
struct Counts {
    spans: [[u64; 2]; DOORS.len()],
    rejected: [[u64; 2]; DOORS.len()],
    traces: [[[u64; SamplerType::ALL.len()]; 2]; DOORS.len()],
    /// Kept; not kept.
    saved: [[u64; 2]; 2],
}

impl Ledger {
    /// Counts a message and what became of it.
    pub fn message(&self, transport: Transport, seen: &Seen, outcome: Outcome) {
        let door = door_of(transport);
        let mut services = self.services.lock();
        for of in &seen.processes {
            let counts = counts(&mut services, &of.process.service);
            for debug in 0..2 {
                let spans = of.spans[debug];
                counts.spans[door][debug] += spans;
                for (sum, traces) in counts.traces[door][debug].iter_mut().zip(of.traces[debug]) {
                    *sum += traces;
                }
                counts.saved[usize::from(outcome != Outcome::Kept)][debug] += spans;
                match outcome {
                    Outcome::Kept => {}
                    Outcome::Refused => counts.rejected[door][debug] += spans,
                    Outcome::Dropped => {
                        self.dropped_spans.fetch_add(spans, Relaxed);
                    }
                }
            }
        }
    }

    /// How long keeping a message took.
    pub fn saved_in(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = SECONDS.iter().position(|bound| seconds <= *bound);
        self.saves[bucket.unwrap_or(SECONDS.len())].fetch_add(1, Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.save_micros.fetch_add(micros, Relaxed);
    }

    /// Counts datagrams; other transports have none.
    pub fn datagrams(&self, transport: Transport, what: Datagram, count: u64) {
        if let Some(at) = SOCKETS.iter().position(|(t, ..)| *t == transport) {
            self.sockets[at][what as usize].fetch_add(count, Relaxed);
        }
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let services = self.services.lock();
        let mut services: Vec<(Box<str>, Box<Counts>)> = services
            .iter()
            .map(|(service, counts)| (service.clone(), counts.clone()))
            .collect();
        services.sort_by(|a, b| a.0.cmp(&b.0));
        let mut page = Page(String::new());
        page.head("jaeger_collector_spans_received_total", "counter");
        for (service, counts) in &services {
            for_doors(&counts.spans, |door, debug, spans| {
                page.by_door(
                    "jaeger_collector_spans_received_total",
                    service,
                    door,
                    debug,
                    "",
                    spans,
                );
            });
        }
        page.head("jaeger_collector_traces_received_total", "counter");
        for (service, counts) in &services {
            for (door, of) in DOORS.iter().zip(&counts.traces) {
                for (debug, of) in of.iter().enumerate() {
                    for (sampler, traces) in SamplerType::ALL.iter().zip(of) {
                        let sampler = format!(",sampler_type=\"{}\"", sampler.name());
                        let name = "jaeger_collector_traces_received_total";
                        page.by_door(name, service, door, debug, &sampler, *traces);
                    }
                }
            }
        }
        page.head("jaeger_collector_spans_rejected_total", "counter");
        for (service, counts) in &services {
            for_doors(&counts.rejected, |door, debug, spans| {
                page.by_door(
                    "jaeger_collector_spans_rejected_total",
                    service,
                    door,
                    debug,
                    "",
                    spans,
                );
            });
        }
        page.head("jaeger_collector_spans_saved_by_svc_total", "counter");
        for (service, counts) in &services {
            for (result, by_debug) in ["ok", "err"].iter().zip(counts.saved) {
                for (debug, spans) in by_debug.iter().enumerate().filter(|(_, n)| **n > 0) {
                    let debug = debug == 1;
                    let labels = format!(
                        "{{debug=\"{debug}\",result=\"{result}\",svc=\"{}\"}}",
                        escaped(service)
                    );
                    page.line("jaeger_collector_spans_saved_by_svc_total", &labels, *spans);
                }
            }
        }
        page.head("jaeger_collector_spans_dropped_total", "counter");
        let dropped = self.dropped_spans.load(Relaxed);
        page.line("jaeger_collector_spans_dropped_total", "", dropped);
        self.render_saves(&mut page);
        self.render_sockets(&mut page);
        page.0
    }

    fn render_saves(&self, page: &mut Page) {
        page.head("jaeger_collector_save_latency", "histogram");
        let mut sum = 0;
        for (at, count) in self.saves.iter().enumerate() {
            sum += count.load(Relaxed);
            let bound = SECONDS.get(at).map_or("+Inf".to_owned(), f64::to_string);
            let labels = format!("{{le=\"{bound}\"}}");
            page.line("jaeger_collector_save_latency_bucket", &labels, sum);
        }
        page.line("jaeger_collector_save_latency_count", "", sum);
        let seconds = self.save_micros.load(Relaxed) as f64 / 1e6;
        page.line("jaeger_collector_save_latency_sum", "", seconds);
    }

    fn render_sockets(&self, page: &mut Page) {
        for (what, name) in [
            (Datagram::Processed, "thrift_udp_server_packets_processed"),
            (Datagram::Dropped, "thrift_udp_server_packets_dropped"),
            (Datagram::ReceiveFailed, "thrift_udp_server_read_errors"),
            (
                Datagram::Unreadable,
                "thrift_udp_t_processor_handler_errors",
            ),
        ] {
            let name = format!("jaeger_agent_{name}_total");
            page.head(&name, "counter");
            for ((_, model, protocol), counts) in SOCKETS.iter().zip(&self.sockets) {
                let labels = format!("{{model=\"{model}\",protocol=\"{protocol}\"}}");
                page.line(&name, &labels, counts[what as usize].load(Relaxed));
            }
        }
    }
}

fn counts<'a>(services: &'a mut HashMap<Box<str>, Box<Counts>>, service: &str) -> &'a mut Counts {
    let known = services.contains_key(service) || services.len() < MAX_SERVICES;
    let name = if known { service } else { OTHERS };
    if !services.contains_key(name) {
        services.insert(name.into(), Box::default());
    }
    services.get_mut(name).expect("inserted above")
}

/// Calls `show` for what is above zero: a series that nobody fed says nothing.
fn for_doors(
    counts: &[[u64; 2]; DOORS.len()],
    mut show: impl FnMut(&(&'static str, &'static str), usize, u64),
) {
    for (door, by_debug) in DOORS.iter().zip(counts) {
        for (debug, count) in by_debug.iter().enumerate() {
            show(door, debug, *count);
        }
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn by_door(
        &mut self,
        name: &str,
        service: &str,
        (format, transport): &(&str, &str),
        debug: usize,
        more: &str,
        value: u64,
    ) {
        if value > 0 {
            let labels = format!(
                "{{debug=\"{}\",format=\"{format}\"{more},svc=\"{}\",transport=\"{transport}\"}}",
                debug == 1,
                escaped(service)
            );
            self.line(name, &labels, value);
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::trace::Process;
    use crate::server::spans::seen::OfProcess;

    fn seen(service: &str, spans: u64) -> Seen {
        let process = Process {
            service: service.into(),
            tags: vec![],
        };
        Seen {
            processes: vec![OfProcess {
                process: Arc::new(process),
                spans: [spans, 0],
                traces: [[1, 0, 0, 0, 0], [0; 5]],
            }],
            roots: vec![],
        }
    }

    #[test]
    fn what_came_and_was_kept_is_told_in_jaegers_words() {
        let ledger = Ledger::default();
        ledger.message(Transport::UdpCompact, &seen("a\"b", 3), Outcome::Kept);
        ledger.message(Transport::UdpBinary, &seen("a\"b", 2), Outcome::Dropped);
        ledger.message(Transport::OtlpGrpc, &seen("c", 5), Outcome::Refused);
        ledger.datagrams(Transport::UdpCompact, Datagram::Processed, 1);
        ledger.saved_in(Duration::from_millis(7));
        ledger.saved_in(Duration::from_secs(11));
        let text = ledger.render();
        for line in [
            r#"jaeger_collector_spans_received_total{debug="false",format="proto",svc="a\"b",transport="udp"} 5"#,
            r#"jaeger_collector_spans_received_total{debug="false",format="otlp",svc="c",transport="grpc"} 5"#,
            r#"jaeger_collector_traces_received_total{debug="false",format="proto",sampler_type="probabilistic",svc="a\"b",transport="udp"} 2"#,
            r#"jaeger_collector_spans_rejected_total{debug="false",format="otlp",svc="c",transport="grpc"} 5"#,
            r#"jaeger_collector_spans_saved_by_svc_total{debug="false",result="ok",svc="a\"b"} 3"#,
            r#"jaeger_collector_spans_saved_by_svc_total{debug="false",result="err",svc="a\"b"} 2"#,
            "jaeger_collector_spans_dropped_total 2",
            r#"jaeger_collector_save_latency_bucket{le="0.005"} 0"#,
            r#"jaeger_collector_save_latency_bucket{le="0.01"} 1"#,
            r#"jaeger_collector_save_latency_bucket{le="+Inf"} 2"#,
            "jaeger_collector_save_latency_sum 11.007",
            r#"jaeger_agent_thrift_udp_server_packets_processed_total{model="jaeger",protocol="compact"} 1"#,
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in\n{text}");
        }
        assert_eq!(text.matches("spans_received_total{").count(), 2, "{text}");
    }

    #[test]
    fn services_beyond_the_bound_are_counted_together() {
        let ledger = Ledger::default();
        for n in 0..MAX_SERVICES + 5 {
            ledger.message(
                Transport::JaegerHttp,
                &seen(&format!("s{n}"), 1),
                Outcome::Kept,
            );
        }
        let text = ledger.render();
        let others = r#"spans_received_total{debug="false",format="jaeger",svc="other-services",transport="http"} 5"#;
        assert!(text.contains(others), "{text}");
        assert_eq!(
            text.matches("spans_received_total{").count(),
            MAX_SERVICES + 1
        );
    }
}
