//! What clients are told about sampling, by the real program.

use crate::appliance::{Answer, Appliance, Setup};

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
    let agent = appliance.get("jaeger.agent.sampling", &format!("/sampling{query}"));
    let collector = appliance.get("jaeger.collector.http", &format!("/api/sampling{query}"));
    assert_eq!(agent.body, collector.body);
    agent
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
