//! What clients are told about sampling, by the real program.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::Instant;

use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, Setup, now};

fn strategies(rate: f64) -> String {
    format!(
        r#"{{"service_strategies": [{{"service": "api", "type": "probabilistic", "param": {rate},
            "operation_strategies": [
                {{"operation": "/health", "type": "probabilistic", "param": 0}}]}}]}}"#
    )
}

/// What both HTTP doors say of a service, once they say the same.
#[track_caller]
fn asked(appliance: &Appliance, service: &str) -> Answer {
    let query = format!("?service={service}");
    // The strategies may be read again between the two questions.
    appliance.wait("both doors to say the same", || {
        let agent = appliance.get("jaeger.agent.sampling", &format!("/sampling{query}"));
        let collector = appliance.get("jaeger.collector.http", &format!("/api/sampling{query}"));
        (agent.body == collector.body).then_some(agent)
    })
}

fn rate(appliance: &Appliance, service: &str) -> Option<f64> {
    asked(appliance, service).json()["probabilisticSampling"]["samplingRate"].as_f64()
}

#[test]
fn a_strategies_file_is_followed_and_a_broken_one_changes_nothing() {
    let mut appliance = Setup::default().prepare();
    let path = appliance.dir().join("strategies.json");
    std::fs::write(&path, strategies(0.5)).expect("written");
    appliance.change(|setup| {
        setup
            .set("jaeger.sampling.strategies_file", "\"strategies.json\"")
            .set("jaeger.sampling.reload_interval", "\"1s\"")
    });
    appliance.start();
    assert_eq!(rate(&appliance, "api"), Some(0.5));
    assert_eq!(rate(&appliance, "other"), Some(0.001));
    let operations = asked(&appliance, "api").json()["operationSampling"].clone();
    assert_eq!(operations["defaultSamplingProbability"], 0.5);
    let health = &operations["perOperationStrategies"][0];
    assert_eq!(health["operation"], "/health");

    // Put in its place as editors do.
    let new = appliance.dir().join("new.json");
    std::fs::write(&new, strategies(0.25)).expect("written");
    std::fs::rename(&new, &path).expect("renamed");
    appliance.wait("the new rate", || {
        (rate(&appliance, "api") == Some(0.25)).then_some(())
    });

    appliance.expect_log("strategies file");
    std::fs::write(&path, "{ this is none").expect("written");
    appliance.wait("the problem", || {
        let ready = appliance.get("loki.listen", "/ready");
        assert_eq!(ready.status, 200);
        let told = "degraded: strategies file strategies.json: ";
        ready.text().contains(told).then_some(())
    });
    assert_eq!(rate(&appliance, "api"), Some(0.25));
    let metrics = appliance.get("loki.listen", "/metrics").text();
    assert!(
        metrics.contains("watchpost_sampling_strategies_good 0\n"),
        "{metrics}"
    );

    std::fs::write(&path, strategies(1.0)).expect("written");
    appliance.wait("the good file", || {
        (rate(&appliance, "api") == Some(1.0)).then_some(())
    });
    let ready = appliance.get("loki.listen", "/ready").text();
    assert!(!ready.contains("strategies"), "{ready}");
}

#[test]
fn a_hang_up_reads_the_strategies_at_once() {
    let mut appliance = Setup::default().prepare();
    appliance.change(|setup| {
        setup
            .set("jaeger.sampling.strategies_file", "\"strategies.json\"")
            .set("jaeger.sampling.reload_interval", "\"\"")
    });
    appliance.expect_log("strategies file");
    // There is none yet: the program starts all the same, and clients are told nothing false.
    appliance.start();
    let answer = asked(&appliance, "api");
    assert_eq!(answer.status, 500);
    assert!(
        answer
            .text()
            .starts_with("collector error: strategies file "),
        "{}",
        answer.text()
    );
    let path = appliance.dir().join("strategies.json");
    std::fs::write(path, strategies(0.5)).expect("written");
    appliance.signal(libc::SIGHUP);
    appliance.wait("the rate", || {
        let answer = asked(&appliance, "api");
        (answer.status == 200).then_some(())
    });
    assert_eq!(rate(&appliance, "api"), Some(0.5));
}

/// A client of one service, that draws with the probabilities it is told.
struct Client<'a> {
    appliance: &'a Appliance,
    /// Traces per second by operation.
    traffic: [(&'static str, f64); 2],
    rest: [f64; 2],
    last: Instant,
    random: u64,
}

impl<'a> Client<'a> {
    fn of(appliance: &'a Appliance) -> Self {
        Self {
            appliance,
            traffic: [("busy", 400.0), ("rare", 4.0)],
            rest: [0.0; 2],
            last: Instant::now(),
            random: 0x2545_f491_4f6c_dd1d,
        }
    }

    fn draw(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Sends what was drawn since the last time; gives back the probabilities.
    fn go_on(&mut self) -> HashMap<String, f64> {
        let told = probabilities(self.appliance);
        let elapsed = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let mut spans: Vec<Value> = Vec::new();
        for at in 0..self.traffic.len() {
            let (operation, rate) = self.traffic[at];
            let probability = told.get(operation).copied().unwrap_or(0.5);
            self.rest[at] += elapsed * rate;
            while self.rest[at] >= 1.0 {
                self.rest[at] -= 1.0;
                if self.draw() < probability {
                    spans.push(self.root(operation, probability));
                }
            }
        }
        if !spans.is_empty() {
            let name = json!({ "key": "service.name", "value": { "stringValue": "shop" } });
            let export = json!({ "resourceSpans": [{ "resource": { "attributes": [name] },
                "scopeSpans": [{ "spans": spans }] }] });
            let headers = [("Content-Type", "application/json")];
            let body = export.to_string();
            let answer = self
                .appliance
                .post("otlp.http", "/v1/traces", &headers, body.as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        told
    }

    fn root(&mut self, operation: &str, probability: f64) -> Value {
        let (id, start) = (self.random, now());
        json!({
            "traceId": format!("{id:032x}"), "spanId": format!("{id:016x}"), "name": operation,
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + 1000).to_string(),
            "attributes": [
                { "key": "sampler.type", "value": { "stringValue": "probabilistic" } },
                { "key": "sampler.param", "value": { "doubleValue": probability } },
            ],
        })
    }
}

fn probabilities(appliance: &Appliance) -> HashMap<String, f64> {
    let sampling = asked(appliance, "shop").json()["operationSampling"].clone();
    let operations = sampling["perOperationStrategies"].as_array().cloned();
    let pair = |o: &Value| {
        let rate = o["probabilisticSampling"]["samplingRate"].as_f64();
        (
            o["operation"].as_str().expect("a name").to_owned(),
            rate.expect("a rate"),
        )
    };
    operations.expect("always there").iter().map(pair).collect()
}

#[test]
fn adaptive_sampling_comes_to_the_target_and_is_kept_over_a_crash() {
    let adaptive = |key: &str| format!("jaeger.sampling.adaptive.{key}");
    let mut appliance = Setup::default()
        .set("jaeger.sampling.type", "\"adaptive\"")
        .set(&adaptive("target_samples_per_second"), 20.0)
        .set(&adaptive("calculation_interval"), "\"1s\"")
        .set(&adaptive("delay"), "\"0s\"")
        .set(&adaptive("aggregation_buckets"), 100)
        .set(&adaptive("buckets_for_calculation"), 3)
        .set(&adaptive("initial_sampling_probability"), 0.5)
        .start();
    let answer = asked(&appliance, "nobody").json();
    assert_eq!(answer["probabilisticSampling"]["samplingRate"], 0.5);
    let sampling = &answer["operationSampling"];
    assert_eq!(sampling["defaultSamplingProbability"], 0.5);
    assert_eq!(sampling["perOperationStrategies"], json!([]));

    // 20 of 400 a second; and of 4 as many as there are.
    let near = |told: &HashMap<String, f64>| {
        let busy = told.get("busy").is_some_and(|p| (0.025..=0.1).contains(p));
        busy && told.get("rare") == Some(&1.0)
    };
    let mut client = Client::of(&appliance);
    appliance.wait("the target", || near(&client.go_on()).then_some(()));
    appliance.wait("the keeping", || {
        let kept = appliance.metric("sampling_adaptive_calculations", &[]);
        client.go_on();
        (kept >= 5.0).then_some(())
    });
    appliance.kill();
    appliance.start();
    let told = probabilities(&appliance);
    assert!(told["busy"] < 0.2 && told["rare"] > 0.5, "{told:?}");
}

#[test]
fn the_admin_port_tells_health_and_what_came_in() {
    let appliance = Setup::default().start();
    let health = appliance.get("jaeger.collector.admin", "/");
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["status"], "Server available");
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jaeger");
    let read = |name: &str| std::fs::read(format!("{fixtures}/{name}")).expect("a fixture");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = appliance
        .address("jaeger.agent.compact")
        .expect("listening");
    for name in ["captured/go-traefik64.bin", "malformed/one-byte.bin"] {
        socket.send_to(&read(name), address).expect("sent");
    }
    let thrift = [("Content-Type", "application/x-thrift")];
    let body = read("captured/go-http.bin");
    let answer = appliance.post("jaeger.collector.http", "/api/traces", &thrift, &body);
    assert_eq!(answer.status, 202);
    let lines = [
        r#"jaeger_collector_spans_received_total{debug="false",format="proto",svc="traefik",transport="udp"} 2"#,
        r#"jaeger_collector_spans_saved_by_svc_total{debug="false",result="ok",svc="traefik"} 4"#,
        r#"jaeger_collector_traces_received_total{debug="false",format="proto",sampler_type="const",svc="traefik",transport="udp"} 1"#,
        r#"jaeger_agent_thrift_udp_server_packets_processed_total{model="jaeger",protocol="compact"} 1"#,
        r#"jaeger_agent_thrift_udp_t_processor_handler_errors_total{model="jaeger",protocol="compact"} 1"#,
        "jaeger_collector_save_latency_count 1",
    ];
    let mut text = String::new();
    let found = || {
        text = appliance.get("jaeger.collector.admin", "/metrics").text();
        lines
            .iter()
            .all(|line| text.contains(&format!("{line}\n")))
            .then_some(())
    };
    appliance.wait("the counters", found);
    let version = appliance.get("jaeger.collector.admin", "/version").json();
    assert!(
        version["gitVersion"]
            .as_str()
            .is_some_and(|v| v.starts_with("watchpost-"))
    );
}
