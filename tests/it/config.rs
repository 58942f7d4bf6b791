//! What an operator sees when something is not as it must be, and what the commands answer.

use std::process::Output;

use crate::appliance::{Appliance, Setup};

/// Exit codes as documented in docs/operating.md.
const FAILED: i32 = 1;
const WRONG_CONFIGURATION: i32 = 78;

/// Runs a command to its end.
fn run(appliance: &Appliance, arguments: &[&str]) -> Output {
    appliance
        .command(arguments)
        .output()
        .expect("the program runs")
}

#[track_caller]
fn refuses(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_wrong_key_is_told_with_file_line_and_what_was_meant() {
    let appliance = Setup::default()
        .table("[otlp.x]\n[storge]\npath = \"x\"\n")
        .prepare();
    let output = run(&appliance, &["serve"]);
    refuses(&output, WRONG_CONFIGURATION, &["config.toml:", "storge"]);
    assert!(
        !appliance.data_dir().exists(),
        "nothing may have happened yet"
    );

    let appliance = Setup::default()
        .set("storage.durabilty", "\"sync\"")
        .prepare();
    let parts = [
        "config.toml:",
        "storage.durabilty",
        "did you mean `storage.durability`?",
    ];
    refuses(&run(&appliance, &["serve"]), WRONG_CONFIGURATION, &parts);
    refuses(
        &run(&appliance, &["check-config"]),
        WRONG_CONFIGURATION,
        &parts,
    );

    let appliance = Setup::default().set("memory.limit", "\"a lot\"").prepare();
    refuses(
        &run(&appliance, &["serve"]),
        WRONG_CONFIGURATION,
        &["memory.limit", "a lot", "256MiB"],
    );

    let appliance = Setup::default()
        .env("WATCHPOST__LOKI__TENANCI", "true")
        .prepare();
    refuses(
        &run(&appliance, &["serve"]),
        WRONG_CONFIGURATION,
        &["WATCHPOST__LOKI__TENANCI"],
    );
}

#[test]
fn a_busy_port_is_told_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let appliance = Setup::default()
        .set("otlp.http", format!("\"{address}\""))
        .prepare();
    let address = address.to_string();
    refuses(
        &run(&appliance, &["serve"]),
        FAILED,
        &["otlp.http", &address, "in use"],
    );
    assert!(
        !appliance.data_dir().exists(),
        "nothing may have happened yet"
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let appliance = Setup::default()
        .set("storage.path", "\"config.toml/data\"")
        .prepare();
    let output = run(&appliance, &["serve"]);
    refuses(
        &output,
        FAILED,
        &["storage.path", "config.toml/data", "Not a directory"],
    );
}

#[test]
fn a_second_instance_on_the_same_data_is_refused() {
    let appliance = Setup::default().start();
    let data = appliance.data_dir();
    let second = Setup::default()
        .set("storage.path", format!("{data:?}"))
        .prepare();
    let name = data.to_string_lossy().into_owned();
    refuses(&run(&second, &["serve"]), FAILED, &[&name, "another"]);
    let body = serde_json::json!({ "streams": [] });
    assert_ne!(appliance.push(&body).status, 500, "the first goes on");
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let mut appliance = Setup::default().start();
    assert!(appliance.stop().success());
    let format = std::fs::read_dir(appliance.data_dir())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| {
            path.is_file()
                && std::fs::read_to_string(path).is_ok_and(|t| t.trim().parse::<u32>().is_ok())
        })
        .expect("a file with the format's version");
    std::fs::write(&format, "999\n").expect("writable");
    refuses(
        &run(&appliance, &["serve"]),
        FAILED,
        &["999", "newer version"],
    );
}

#[test]
fn healthcheck_query_and_inspect_answer_what_they_should() {
    let mut appliance = Setup::default().start();
    let url = appliance.url("loki.listen", "/ready");
    assert_eq!(
        run(&appliance, &["healthcheck", "--url", &url])
            .status
            .code(),
        Some(0)
    );
    let line = serde_json::json!({ "streams": [{ "stream": { "app": "x" },
        "values": [[crate::appliance::now().to_string(), "hello from here"]] }] });
    assert_eq!(appliance.push(&line).status, 204);
    // `query` takes no --config.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_watchpost"))
        .args([
            "query",
            "--raw",
            "--addr",
            &appliance.url("loki.listen", ""),
            "{app=\"x\"}",
        ])
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        (output.status.code(), &*text),
        (Some(0), "hello from here\n")
    );

    appliance.flush();
    assert_eq!(appliance.stop().code(), Some(0));
    assert_eq!(
        run(&appliance, &["healthcheck", "--url", &url])
            .status
            .code(),
        Some(FAILED)
    );
    let output = run(&appliance, &["inspect"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("log-"), "{text}");
}

#[test]
fn signals_flush_and_end_it() {
    let mut appliance = Setup::default().start();
    appliance.signal(libc::SIGUSR1);
    appliance.wait("the flush", || {
        appliance.log_text().contains("flushed").then_some(())
    });
    appliance.signal(libc::SIGHUP);
    appliance.wait("the hint", || {
        appliance
            .log_text()
            .contains("read at start only")
            .then_some(())
    });
    appliance.signal(libc::SIGINT);
    assert_eq!(appliance.wait_for_exit().code(), Some(0));
}
