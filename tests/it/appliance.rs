//! The real program in a directory of its own, on free ports of an address of its own:
//! started, asked, killed, started again.
//!
//! An [`Appliance`] that goes away without a panic checks what the program logged: a
//! warning or an error that the test did not announce with [`Appliance::expect_log`] fails it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the program may take to start, to stop, or to do what a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Listeners that a test may want, by their key.
const LISTENERS: [&str; 14] = [
    "loki.listen",
    "jaeger.agent.compact",
    "jaeger.agent.binary",
    "jaeger.agent.zipkin",
    "jaeger.agent.sampling",
    "jaeger.collector.http",
    "jaeger.collector.grpc",
    "jaeger.collector.admin",
    "jaeger.query.http",
    "jaeger.query.grpc",
    "jaeger.storage.grpc",
    "otlp.http",
    "otlp.grpc",
    "zipkin.listen",
];

/// Where each listener is, while the program runs. Threads that push share it.
pub type Addresses = Arc<Mutex<HashMap<String, SocketAddr>>>;

/// How an appliance is to run.
#[derive(Clone, Default)]
pub struct Setup {
    settings: Vec<(String, String)>,
    tables: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// Sets a key of the configuration to a value written as in TOML.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.retain(|(k, _)| k != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Appends to the configuration file, such as a `[[files]]` table.
    pub fn table(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program in a new directory and waits until it takes pushes.
    pub fn start(self) -> Appliance {
        let mut appliance = self.prepare();
        appliance.start();
        appliance
    }

    /// All but the start.
    pub fn prepare(self) -> Appliance {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ip = own_address();
        let mut settings: Vec<(String, String)> = LISTENERS
            .iter()
            .map(|key| ((*key).to_owned(), format!("\"{ip}:0\"")))
            .collect();
        settings.push(("log.format".into(), "\"json\"".into()));
        settings.push((
            "storage.path".into(),
            format!("{:?}", dir.path().join("data")),
        ));
        settings.push((
            "loki.limits.max_entries_limit_per_query".into(),
            "10_000_000".into(),
        ));
        // A full disk is a test of its own; here the machine may have any.
        settings.push(("storage.min_free_bytes".into(), "\"1MiB\"".into()));
        let setup = settings
            .into_iter()
            .rev()
            .fold(self, |mut setup, (key, value)| {
                if !setup.settings.iter().any(|(k, _)| *k == key) {
                    setup.settings.insert(0, (key, value));
                }
                setup
            });
        Appliance {
            dir,
            setup,
            child: None,
            addresses: Addresses::default(),
            log: Arc::default(),
            expected: Vec::new(),
            agent: agent(),
        }
    }
}

/// Of 127.0.0.0/8, so that no port can ever be one that another test's process had.
fn own_address() -> String {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{count}", 1 + (process >> 8) % 250, process % 256)
}

/// One line of the program's log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub level: String,
    /// Message and fields, as written.
    pub text: String,
}

struct Running {
    child: Child,
    reader: std::thread::JoinHandle<()>,
}

pub struct Appliance {
    dir: tempfile::TempDir,
    setup: Setup,
    child: Option<Running>,
    addresses: Addresses,
    log: Arc<Mutex<Vec<Logged>>>,
    expected: Vec<&'static str>,
    agent: ureq::Agent,
}

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("status {}, not JSON: {e}: {}", self.status, self.text()))
    }
}

impl Appliance {
    /// Starts the program, on the same directory as before.
    pub fn start(&mut self) {
        self.try_start().unwrap_or_else(|why| panic!("{why}"));
    }

    /// Starts the program and waits until it takes pushes; the error is what it said.
    pub fn try_start(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "already running");
        let mut child = self
            .command(&["serve"])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("starting: {e}"))?;
        let stderr = child.stderr.take().expect("piped");
        let reader = {
            let (log, addresses) = (self.log.clone(), self.addresses.clone());
            std::thread::spawn(move || read_log(stderr, &log, &addresses))
        };
        self.child = Some(Running { child, reader });
        let begun = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return Err(format!(
                    "ended with {status} while starting:\n{}",
                    self.log_text()
                ));
            }
            let on = |key: &&&str| {
                let off = |(k, value): &(String, String)| k == **key && value == "\"\"";
                !self.setup.settings.iter().any(off)
            };
            if LISTENERS
                .iter()
                .filter(on)
                .all(|key| self.address(key).is_some())
                && self
                    .try_get("loki.listen", "/ready")
                    .is_ok_and(|a| a.status == 200)
            {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!(
                    "not ready within {PATIENCE:?}:\n{}",
                    self.log_text()
                ));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// The program with this appliance's configuration, for any of its commands.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let file = self.dir.path().join("config.toml");
        let mut text: String = self
            .setup
            .settings
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        text.push_str(&self.setup.tables);
        std::fs::write(&file, text).expect("the configuration can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
        command
            .args(arguments)
            .arg("--config")
            .arg(file)
            .current_dir(self.dir.path());
        for name in ["FAILPOINTS", "KILLPOINTS", "NOTIFY_SOCKET"] {
            command.env_remove(name);
        }
        // A panic is told in two lines, which a test may expect.
        command.env("RUST_BACKTRACE", "0");
        command.envs(self.setup.environment.iter().cloned());
        die_with_parent(&mut command);
        command
    }

    /// Changes the configuration of the next start.
    pub fn change(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(std::mem::take(&mut self.setup));
    }

    /// Fail points of the next start, as FAILPOINTS has them; none for "".
    pub fn set_fail_points(&mut self, points: &str) {
        self.set_env("FAILPOINTS", points);
    }

    /// A variable of the next start; none for "".
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.setup.environment.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.setup.environment.push((name.into(), value.into()));
        }
    }

    /// kill -9, as sudden as it gets. Returns whether it still ran.
    pub fn kill(&mut self) -> bool {
        locked(&self.addresses).clear();
        let Some(mut running) = self.child.take() else {
            return false;
        };
        let ran = matches!(running.child.try_wait(), Ok(None));
        let _ = running.child.kill();
        let _ = running.child.wait();
        let _ = running.reader.join();
        locked(&self.addresses).clear();
        ran
    }

    /// Asks the program to end and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait_for_exit()
    }

    pub fn signal(&self, signal: i32) {
        let running = self.child.as_ref().expect("running");
        // SAFETY: kill takes two integers; the child was not waited for, so the id is its own.
        let sent = unsafe { libc::kill(running.child.id() as i32, signal) };
        assert_eq!(sent, 0, "signal {signal}");
    }

    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                let running = self.child.take().expect("running");
                let _ = running.reader.join();
                locked(&self.addresses).clear();
                return status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "still running:\n{}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How the program ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|running| running.child.try_wait().expect("a child"))
    }

    /// Directory with the configuration and `data`; free for a test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    pub fn address(&self, key: &str) -> Option<SocketAddr> {
        locked(&self.addresses).get(key).copied()
    }

    #[track_caller]
    pub fn url(&self, key: &str, path: &str) -> String {
        let address = self
            .address(key)
            .unwrap_or_else(|| panic!("{key} is not listening"));
        format!("http://{address}{path}")
    }

    pub fn try_get(&self, key: &str, path: &str) -> Result<Answer, String> {
        let address = self.address(key).ok_or("not running")?;
        request(
            &self.agent,
            "GET",
            &format!("http://{address}{path}"),
            &[],
            &[],
        )
    }

    #[track_caller]
    pub fn get(&self, key: &str, path: &str) -> Answer {
        request(&self.agent, "GET", &self.url(key, path), &[], &[]).expect("an answer")
    }

    #[track_caller]
    pub fn post(&self, key: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(&self.agent, "POST", &self.url(key, path), headers, body).expect("an answer")
    }

    /// Posts what the server will not read to its end: it may close while we still write,
    /// and its answer counts all the same.
    #[track_caller]
    pub fn post_in_vain(
        &self,
        key: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let address = self.address(key).expect("listening");
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        head.push_str(&format!("content-length: {}\r\n", body.len()));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream
            .write_all(format!("{head}\r\n").as_bytes())
            .expect("sent");
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Answer {
            status: status.unwrap_or(0),
            body: body.as_bytes().to_vec(),
        }
    }

    /// Pushes to Loki's port, as JSON.
    #[track_caller]
    pub fn push(&self, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.post(
            "loki.listen",
            "/loki/api/v1/push",
            &headers,
            body.to_string().as_bytes(),
        )
    }

    /// Lines of a selector, oldest first, of the last three days and the next one: time
    /// and text, of all streams together in the order of their times.
    #[track_caller]
    pub fn lines(&self, logql: &str) -> Vec<(i64, String)> {
        const PAGE: usize = 50_000;
        let now = now();
        let day = 86_400_000_000_000;
        let (mut from, end) = (now - 3 * day, now + day);
        let mut lines: Vec<(i64, String)> = Vec::new();
        loop {
            let path = format!(
                "/loki/api/v1/query_range?query={}&start={from}&end={end}&limit={PAGE}&direction=forward",
                encoded(logql),
            );
            let answer = self.get("loki.listen", &path);
            assert_eq!(answer.status, 200, "{logql}: {}", answer.text());
            let mut page: Vec<(i64, String)> = streams_of(&answer.json());
            let is_last = page.len() < PAGE;
            // Stable: within a stream equal times stay in their order.
            page.sort_by_key(|(at, _)| *at);
            lines.append(&mut page);
            if is_last {
                return lines;
            }
            // Of the last time there may be more.
            let last = lines[lines.len() - 1].0;
            assert!(last > from, "{logql}: more than a page at {last}");
            lines.truncate(lines.partition_point(|(at, _)| *at < last));
            from = last;
        }
    }

    /// Seals everything and commits the indices.
    #[track_caller]
    pub fn flush(&self) {
        let answer = self.post("loki.listen", "/flush", &[], b"");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Waits until the journal has been replayed.
    #[track_caller]
    pub fn wait_recovered(&self) {
        self.wait("recovery", || {
            let ready = self.try_get("loki.listen", "/ready").ok()?;
            (ready.status == 200 && !ready.text().contains("replaying")).then_some(())
        });
    }

    /// Waits until something is there.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "waited for {what}:\n{}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A metric: its name without `watchpost_`, and which labels it must have at least.
    /// Sums what matches; 0 when nothing does.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.get("loki.listen", "/metrics").text();
        let mut sum = 0.0;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("watchpost_") else {
                continue;
            };
            let Some((key, value)) = rest.rsplit_once(' ') else {
                continue;
            };
            let (found, with) = key.split_once('{').unwrap_or((key, ""));
            let wanted = labels
                .iter()
                .all(|(k, v)| with.contains(&format!("{k}=\"{v}\"")));
            if (found == name || found.strip_suffix("_total") == Some(name)) && wanted {
                sum += value.parse::<f64>().expect("a number");
            }
        }
        sum
    }

    /// Memory that the program occupies now, and at most so far, in bytes.
    pub fn resident(&self) -> (u64, u64) {
        (self.of_status("VmRSS:"), self.of_status("VmHWM:"))
    }

    /// Of the memory that it occupies now what is not a mapped file's: those the kernel may take
    /// back. Bytes.
    pub fn own_memory(&self) -> u64 {
        self.of_status("RssAnon:")
    }

    /// A size in the process's status, bytes.
    fn of_status(&self, name: &str) -> u64 {
        let id = self.child.as_ref().expect("running").child.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("running");
        let mut lines = status.lines();
        let line = lines
            .find(|l| l.starts_with(name))
            .expect("a line of status");
        let number = line.split_whitespace().nth(1).expect("a number");
        number.parse::<u64>().expect("a number") << 10
    }

    /// A warning or error with this text in it is part of the test.
    pub fn expect_log(&mut self, part: &'static str) {
        self.expected.push(part);
    }

    /// All that was logged, over all starts.
    pub fn log_text(&self) -> String {
        let log = locked(&self.log);
        log.iter()
            .map(|l| format!("{} {}\n", l.level, l.text))
            .collect()
    }

    /// Warnings and errors that no one announced.
    fn complaints(&self) -> Vec<String> {
        let log = locked(&self.log);
        let bad = log
            .iter()
            .filter(|l| !matches!(&*l.level, "INFO" | "DEBUG" | "TRACE"));
        bad.filter(|l| !self.expected.iter().any(|part| l.text.contains(part)))
            .map(|l| format!("{} {}", l.level, l.text))
            .collect()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() {
            let complaints = self.complaints();
            assert!(
                complaints.is_empty(),
                "unexpected in the log:\n{}",
                complaints.join("\n")
            );
        }
    }
}

/// Also when the test runner is killed: nothing may outlive it.
fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is a plain system call, fine between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

fn read_log(
    stderr: impl Read,
    log: &Mutex<Vec<Logged>>,
    addresses: &Mutex<HashMap<String, SocketAddr>>,
) {
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { return };
        let text = String::from_utf8_lossy(&line).into_owned();
        let Ok(json) = serde_json::from_str::<Value>(&text) else {
            // What is not ours: a panic, or the last words of `main`.
            if !text.is_empty() {
                locked(log).push(Logged {
                    level: "RAW".into(),
                    text,
                });
            }
            continue;
        };
        let fields = &json["fields"];
        let message = fields["message"].as_str().unwrap_or("");
        if let Some(key) = message.strip_prefix("listening: ")
            && let Some(Ok(address)) = fields["address"].as_str().map(str::parse)
        {
            locked(addresses).insert(key.to_owned(), address);
        }
        let level = json["level"].as_str().unwrap_or("?").to_owned();
        locked(log).push(Logged {
            level,
            text: format!("{message} {fields}"),
        });
    }
}

/// A test that failed elsewhere must not hide behind a poisoned lock.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build();
    ureq::Agent::new_with_config(config)
}

/// One request; an error is one of the connection.
pub fn request(
    agent: &ureq::Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, String> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).map_err(|e| e.to_string())?;
    let mut response = agent
        .run(request)
        .map_err(|e| format!("{method} {url}: {e}"))?;
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_to_vec();
    Ok(Answer {
        status,
        body: body.map_err(|e| format!("{method} {url}: {e}"))?,
    })
}

/// Time and text of all lines of an answer to a log query.
#[track_caller]
pub fn streams_of(answer: &Value) -> Vec<(i64, String)> {
    let streams = answer["data"]["result"].as_array().expect("streams");
    let values = streams
        .iter()
        .flat_map(|s| s["values"].as_array().expect("values"));
    values
        .map(|v| {
            let at = v[0].as_str().and_then(|t| t.parse().ok()).expect("a time");
            (at, v[1].as_str().expect("a line").to_owned())
        })
        .collect()
}

/// Nanoseconds since the epoch.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_nanos()).expect("before 2262")
}

/// Midnight before the tests began: the same to their end, which may be on the next day.
pub fn today() -> i64 {
    const DAY: i64 = 86_400_000_000_000;
    static TODAY: LazyLock<i64> = LazyLock::new(|| now() / DAY * DAY);
    *TODAY
}

/// For the query of a URL.
pub fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
