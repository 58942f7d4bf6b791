//! The command line: serve, check-config, healthcheck, query; for data directories inspect,
//! verify, repair, export.
//!
//! Exit codes: 0 done; 1 failed, not healthy, or something is damaged; 2 wrong arguments; 74
//! the disk failed a promise (from `serve`); 78 wrong configuration.

mod backup;
mod client;
mod data;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use crate::config::{Config, ConfigErrors, Flag, Loaded, units};
use backup::Backup;
use client::get;
pub use data::DataParts;
use data::Export;

/// Wrong configuration (`EX_CONFIG`): starting again changes nothing.
pub const EXIT_CONFIG: u8 = 78;

/// `healthcheck` gives up after this; container runtimes wait 30 s by default.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// `query` waits a little longer than a server's default limit.
const QUERY_TIMEOUT: Duration = Duration::from_secs(90);

/// What the commands need that other parts own.
pub struct Parts {
    /// Runs the server until it is told to stop.
    pub serve: fn(Loaded) -> anyhow::Result<ExitCode>,
    /// Prints what a data directory holds, without changing it.
    pub inspect: fn(&Path, &mut dyn Write) -> anyhow::Result<()>,
    pub data: DataParts,
}

#[derive(Debug, Parser)]
#[command(
    name = "watchpost",
    version,
    about = "Logs and traces of a small cluster in one process"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(Source),
    /// Check the configuration and print what is in effect, as TOML.
    CheckConfig(Source),
    /// Ask a running server whether it accepts pushes: exit code 0 or 1.
    Healthcheck {
        /// What to ask; by default /ready at the address that the configuration has.
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        source: Source,
    },
    /// Run a LogQL query and print lines, or samples.
    Query(Query),
    /// Look into a data directory, read-only; the server may run on it.
    Inspect(Source),
    /// Read everything of a data directory and print what is damaged: exit code 0 or 1. Changes
    /// nothing; the server may run on it.
    Verify(Source),
    /// Make a damaged data directory whole: indices are made anew, what can't be read is taken
    /// out, and what was lost is printed. The server must not run on it.
    Repair(Source),
    /// Backups: create, verify, restore, list.
    #[command(subcommand)]
    Backup(Backup),
    /// Print all lines of a log query, or all spans of a selector, one JSON object a line.
    Export(Export),
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
struct Source {
    /// Instead of ./config.toml or /etc/watchpost/config.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Key storage.path; `--path` is short for it.
    #[arg(long, value_name = "DIR", alias = "path")]
    storage_path: Option<String>,
    /// Key log.level.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Any other key, such as `loki.listen=127.0.0.1:3100`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct Query {
    /// Such as `{app="api"} |= "error"` or `sum by (app) (rate({app=~".+"}[5m]))`.
    logql: String,
    /// Server to ask.
    #[arg(long, default_value = "http://127.0.0.1:3100")]
    addr: String,
    /// Begin this long before the end.
    #[arg(long, default_value = "1h", value_parser = duration)]
    since: Duration,
    /// Begin here instead: RFC 3339 or Unix seconds.
    #[arg(long, value_parser = instant)]
    from: Option<i64>,
    /// End here instead of now.
    #[arg(long, value_parser = instant)]
    to: Option<i64>,
    /// At most this many lines, the newest.
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    /// Distance of samples of a metric query; the server chooses by default.
    #[arg(long, value_parser = duration)]
    step: Option<Duration>,
    /// Sent as X-Scope-OrgID, for servers with tenancy.
    #[arg(long)]
    tenant: Option<String>,
    /// Lines only, without time and labels.
    #[arg(long)]
    raw: bool,
}

/// The program. `arguments` begin with its name.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>, parts: &Parts) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, with code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.command.run(parts) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS, // `| head` has seen enough
        Err(error) => {
            let is_config = error.downcast_ref::<ConfigErrors>().is_some();
            // Nobody to tell when stderr is gone.
            let _ = writeln!(io::stderr(), "watchpost: {error:#}");
            ExitCode::from(if is_config { EXIT_CONFIG } else { 1 })
        }
    }
}

impl Command {
    fn run(self, parts: &Parts) -> anyhow::Result<ExitCode> {
        let mut out = io::stdout().lock();
        match self {
            Self::Serve(source) => {
                drop(out);
                return (parts.serve)(source.load()?);
            }
            Self::CheckConfig(source) => {
                let loaded = source.load()?;
                match &loaded.file {
                    Some(file) => writeln!(out, "# read from {}", file.display())?,
                    None => writeln!(out, "# no file found")?,
                }
                out.write_all(loaded.effective.as_bytes())?;
            }
            Self::Healthcheck { url, source } => {
                let url = match url {
                    Some(url) => url,
                    None => health_url(&source.load()?.config)?,
                };
                return healthcheck(&url, &mut out);
            }
            Self::Query(query) => query.run(&mut out)?,
            Self::Inspect(source) => {
                (parts.inspect)(&source.load()?.config.storage.path, &mut out)?
            }
            Self::Verify(source) => {
                let path = source.load()?.config.storage.path;
                return Ok(data::code((parts.data.verify)(&path, &mut out)?));
            }
            Self::Repair(source) => {
                let path = source.load()?.config.storage.path;
                return Ok(data::code((parts.data.repair)(&path, &mut out)?));
            }
            Self::Backup(backup) => return backup.run(&parts.data, &mut out),
            Self::Export(export) => export.run(&parts.data, &mut io::BufWriter::new(out))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Source {
    fn load(self) -> Result<Loaded, ConfigErrors> {
        let named = |name: &str, key: &str, value: Option<String>| {
            value.map(|value| Flag {
                name: name.into(),
                key: key.into(),
                value,
            })
        };
        let mut flags: Vec<Flag> = self
            .set
            .into_iter()
            .map(|(key, value)| Flag {
                name: format!("--set {key}"),
                key,
                value,
            })
            .collect();
        flags.extend(named("--storage-path", "storage.path", self.storage_path));
        flags.extend(named("--log-level", "log.level", self.log_level));
        // Not `vars()`: that one panics at a variable that is not UTF-8, whoever it is for.
        let environment = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.to_string_lossy().into_owned())));
        Config::load(self.config.as_deref(), environment, &flags)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).ok_or_else(|| format!("expected {}", units::DURATION_FORM))
}

fn instant(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds
            .checked_mul(1_000_000_000)
            .ok_or_else(|| "too far away".to_owned());
    }
    let wrong = |_| "expected RFC 3339 such as 2026-08-21T09:00:00Z, or Unix seconds".to_owned();
    let at = text.parse::<jiff::Timestamp>().map_err(wrong)?;
    i64::try_from(at.as_nanosecond()).map_err(|_| "too far away".to_owned())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

// ---- healthcheck

fn health_url(config: &Config) -> anyhow::Result<String> {
    let Some(address) = config.loki.listen else {
        bail!("loki.listen is off, so nothing answers /ready; give --url");
    };
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    Ok(format!(
        "http://{}/ready",
        SocketAddr::new(ip, address.port())
    ))
}

fn healthcheck(url: &str, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let answer = get(url, &[], HEALTH_TIMEOUT)?;
    out.write_all(&answer.body)?;
    Ok(if answer.status == 200 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

// ---- query

impl Query {
    fn run(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is wrong")?;
        let url = self.url(i64::try_from(now.as_nanos()).context("the clock is wrong")?);
        let tenant = self.tenant.as_deref().map(|t| ("X-Scope-OrgID", t));
        let answer = get(&url, tenant.as_slice(), QUERY_TIMEOUT)?;
        if answer.status != 200 {
            bail!("{}", String::from_utf8_lossy(&answer.body).trim_end());
        }
        let body = serde_json::from_slice(&answer.body).context("the answer is not JSON")?;
        print(&body, self.raw, &mut io::BufWriter::new(out))
    }

    fn url(&self, now: i64) -> String {
        let end = self.to.unwrap_or(now);
        let since = i64::try_from(self.since.as_nanos()).unwrap_or(i64::MAX);
        let start = self.from.unwrap_or_else(|| end.saturating_sub(since));
        let mut url = format!(
            "{}/loki/api/v1/query_range?query={}&start={start}&end={end}&limit={}&direction=backward",
            self.addr.trim_end_matches('/'),
            percent_encode(&self.logql),
            self.limit,
        );
        if let Some(step) = self.step {
            url.push_str(&format!("&step={}", step.as_secs_f64()));
        }
        url
    }
}

/// Prints the result of a query, oldest first.
fn print(body: &Value, raw: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let data = &body["data"];
    let results = data["result"].as_array().map_or(&[][..], Vec::as_slice);
    match data["resultType"].as_str() {
        Some("streams") => {
            let mut lines: Vec<(i64, String, &str)> = Vec::new();
            for result in results {
                let labels = labels(&result["stream"]);
                for value in result["values"].as_array().into_iter().flatten() {
                    let at = value[0].as_str().and_then(|t| t.parse().ok());
                    let (Some(at), Some(line)) = (at, value[1].as_str()) else {
                        bail!("the answer has an entry without time or line: {value}");
                    };
                    lines.push((at, labels.clone(), line));
                }
            }
            // Within an instant they came newest first, as everything.
            lines.reverse();
            lines.sort_by_key(|(at, ..)| *at);
            for (at, labels, line) in lines {
                if raw {
                    writeln!(out, "{line}")?;
                } else {
                    writeln!(out, "{} {labels} {line}", time(at))?;
                }
            }
        }
        Some("matrix") => {
            for result in results {
                let labels = labels(&result["metric"]);
                for value in result["values"].as_array().into_iter().flatten() {
                    sample(&labels, value, out)?;
                }
            }
        }
        Some("vector") => {
            for result in results {
                sample(&labels(&result["metric"]), &result["value"], out)?;
            }
        }
        Some("scalar") => sample("", &data["result"], out)?,
        _ => bail!("the answer is not one of Loki's: no resultType"),
    }
    out.flush()?;
    Ok(())
}

fn sample(labels: &str, value: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let (Some(seconds), Some(number)) = (value[0].as_f64(), value[1].as_str()) else {
        bail!("the answer has a sample without time or value: {value}");
    };
    // Milliseconds are what a JSON number carries exactly at this size.
    let at = (seconds * 1e3).round() as i64;
    writeln!(
        out,
        "{} {labels} {number}",
        time(at.saturating_mul(1_000_000))
    )?;
    Ok(())
}

fn labels(value: &Value) -> String {
    let pairs = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={:?}", value.as_str().unwrap_or_default()));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

fn time(at: i64) -> String {
    jiff::Timestamp::from_nanosecond(at.into()).map_or_else(|_| at.to_string(), |t| t.to_string())
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(body: Value, raw: bool, expected: &str) {
        let mut out = Vec::new();
        print(&body, raw, &mut out).expect("prints");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["watchpost"].iter().chain(arguments))
    }

    #[test]
    fn lines_of_all_streams_are_printed_oldest_first() {
        let body = json!({"data": {"resultType": "streams", "result": [
            {"stream": {"app": "a\"b"}, "values": [["3000000000", "c"], ["1000000000", "a"]]},
            {"stream": {}, "values": [["2000000000", "b"]]},
        ]}});
        check(body.clone(), true, "a\nb\nc\n");
        check(
            body,
            false,
            "1970-01-01T00:00:01Z {app=\"a\\\"b\"} a\n1970-01-01T00:00:02Z {} b\n\
             1970-01-01T00:00:03Z {app=\"a\\\"b\"} c\n",
        );
    }

    #[test]
    fn samples_are_printed_with_their_series() {
        let matrix = json!({"data": {"resultType": "matrix", "result": [
            {"metric": {"app": "a"}, "values": [[1.5, "2"], [3, "NaN"]]},
        ]}});
        let expected =
            "1970-01-01T00:00:01.5Z {app=\"a\"} 2\n1970-01-01T00:00:03Z {app=\"a\"} NaN\n";
        check(matrix, false, expected);
        let vector = json!({"data": {"resultType": "vector", "result": [
            {"metric": {}, "value": [1, "0.5"]},
        ]}});
        check(vector, false, "1970-01-01T00:00:01Z {} 0.5\n");
    }

    #[test]
    fn an_answer_of_another_kind_is_an_error() {
        assert!(print(&json!({"hello": 1}), false, &mut Vec::new()).is_err());
        let bad = json!({"data": {"resultType": "streams", "result": [{"values": [[1]]}]}});
        assert!(print(&bad, false, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_query_becomes_a_request_for_its_range() {
        let arguments = [
            "query",
            "{a=\"b\"} |= `x y`",
            "--since",
            "1m",
            "--addr",
            "http://h:1/",
        ];
        let Command::Query(query) = parse(&arguments).expect("parses").command else {
            panic!("a query");
        };
        assert_eq!(
            query.url(100_000_000_000),
            "http://h:1/loki/api/v1/query_range?query=%7Ba%3D%22b%22%7D%20%7C%3D%20%60x%20y%60\
             &start=40000000000&end=100000000000&limit=1000&direction=backward"
        );
        let arguments = [
            "query",
            "{}",
            "--from",
            "5",
            "--to",
            "1970-01-01T00:00:07Z",
            "--step",
            "90s",
        ];
        let Command::Query(query) = parse(&arguments).expect("parses").command else {
            panic!("a query");
        };
        let url = query.url(0);
        assert!(url.contains("&start=5000000000&end=7000000000&"), "{url}");
        assert!(url.ends_with("&step=90"), "{url}");
    }

    #[test]
    fn wrong_arguments_are_told() {
        for arguments in [
            &["query", "{}", "--since", "soon"][..],
            &["query", "{}", "--from", "yesterday"],
            &["serve", "--set", "a"],
            &["brew"],
        ] {
            assert_eq!(
                parse(arguments).expect_err("wrong").exit_code(),
                2,
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn flags_go_before_everything() {
        let arguments = [
            "check-config",
            "--storage-path",
            "/x",
            "--set",
            "loki.listen=127.0.0.1:9",
        ];
        let Command::CheckConfig(mut source) = parse(&arguments).expect("parses").command else {
            panic!("check-config");
        };
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "[storage]\npath = \"/y\"").expect("write");
        source.config = Some(file);
        let config = source.load().expect("valid").config;
        assert_eq!(config.storage.path, Path::new("/x"));
        assert_eq!(
            health_url(&config).expect("a URL"),
            "http://127.0.0.1:9/ready"
        );
    }

    #[test]
    fn health_is_asked_of_loopback_when_all_addresses_are_served() {
        let config = |listen: &str| {
            let flag = Flag {
                name: "x".into(),
                key: "loki.listen".into(),
                value: listen.into(),
            };
            // A file of its own, so that none is searched for.
            let dir = tempfile::tempdir().expect("temp dir");
            let file = dir.path().join("c.toml");
            std::fs::write(&file, "").expect("write");
            Config::load(Some(&file), [], &[flag])
                .expect("valid")
                .config
        };
        assert_eq!(
            health_url(&config("0.0.0.0:1")).expect("a URL"),
            "http://127.0.0.1:1/ready"
        );
        assert_eq!(
            health_url(&config("[::]:1")).expect("a URL"),
            "http://[::1]:1/ready"
        );
        assert!(health_url(&config("")).is_err());
    }

    #[test]
    fn the_status_of_an_answer_decides_about_health() {
        for (answer, expected) in [
            (
                "HTTP/1.1 200 OK\r\nx: y\r\n\r\nready\n",
                Ok((ExitCode::SUCCESS, "ready\n")),
            ),
            (
                "HTTP/1.1 503 No\r\n\r\nnot ready\n",
                Ok((ExitCode::FAILURE, "not ready\n")),
            ),
            ("SSH-2.0-x\r\n", Err(())),
            ("", Err(())),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
            let url = format!("http://{}/ready", listener.local_addr().expect("bound"));
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("accepts");
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).expect("reads");
                stream.write_all(answer.as_bytes()).expect("writes");
            });
            let mut out = Vec::new();
            let result = healthcheck(&url, &mut out).map_err(|_| ());
            server.join().expect("no panic");
            assert_eq!(result, expected.map(|(code, _)| code), "{answer:?}");
            if let Ok((_, text)) = expected {
                assert_eq!(String::from_utf8_lossy(&out), text);
            }
        }
        assert!(healthcheck("https://x/", &mut Vec::new()).is_err());
    }
}
