//! Backups: of a running server, which links the files of one instant, or of a directory at rest.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::data::{DataParts, code};
use super::{Source, client, health_url};
use crate::backup::{self, Bucket, Directory, Made, Target};

/// Flushing everything takes a while on a slow disk.
const LINK_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Back up the data directory, while the server runs on it or not; copies what the target does
    /// not have. Runs on the server's machine, as a user who may read its files.
    Create(Create),
    /// Read everything of the target and print what is damaged: exit code 0 or 1.
    Verify(Verify),
    /// Bring a backup back into the data directory, which must be empty or not there.
    Restore(Restore),
    /// Print the names of the backups, oldest first.
    List(To),
}

/// Where backups are.
#[derive(Debug, Args)]
pub struct To {
    /// A directory, or `s3://<bucket>/<prefix>` with the usual variables: AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.
    #[arg(long, value_name = "DIR or URL")]
    target: String,
}

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    to: To,
    /// Remove older backups beyond so many, and what only they have.
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    to: To,
    /// Only this backup.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub struct Restore {
    #[command(flatten)]
    to: To,
    /// By default the newest.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    source: Source,
}

impl To {
    fn open(&self) -> anyhow::Result<Box<dyn Target>> {
        if self.target.starts_with("s3://") {
            return Ok(Box::new(Bucket::open(&self.target)?));
        }
        Ok(Box::new(Directory::new(&self.target)))
    }
}

impl Backup {
    pub fn run(self, parts: &DataParts, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run(parts, out)?,
            Self::Verify(Verify { to, name }) => {
                let mut damaged = 0u64;
                let target = to.open()?;
                let mut printed = Ok(());
                let files = backup::verify(&*target, name.as_deref(), &mut |what| {
                    damaged += 1;
                    if printed.is_ok() {
                        printed = writeln!(out, "damaged: {what}");
                    }
                })?;
                printed?;
                match damaged {
                    0 => writeln!(out, "read {files} files: nothing is damaged")?,
                    n => writeln!(out, "read {files} files: {n} damaged")?,
                }
                return Ok(code(damaged == 0));
            }
            Self::Restore(Restore { to, name, source }) => {
                let path = source.load()?.config.storage.path;
                let (name, bytes) = backup::restore(&*to.open()?, name.as_deref(), &path)?;
                writeln!(
                    out,
                    "restored backup {name}, {bytes} bytes, into {}",
                    path.display()
                )?;
            }
            Self::List(to) => {
                for name in backup::backups(&*to.open()?)? {
                    writeln!(out, "{name}")?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    fn run(self, parts: &DataParts, out: &mut dyn Write) -> anyhow::Result<()> {
        let target = self.to.open()?;
        let config = self.source.load()?.config;
        let path = &config.storage.path;
        // Sorted by name they are in order.
        let name = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%S.%3fZ")
            .to_string();
        let mut made = Made::default();
        let keep = self.keep;
        let mut copy = |from: &Path| -> anyhow::Result<()> {
            made = backup::create(from, &*target, &name, keep)?;
            Ok(())
        };
        if (parts.is_in_use)(path) {
            let ready = health_url(&config).context("a server runs on the directory")?;
            let server = ready.trim_end_matches("/ready").to_owned();
            let state = State::of(&server)?;
            copy(&state.dir)?;
        } else if path.join("FORMAT").exists() {
            (parts.backup)(path, &mut copy)?;
        } else {
            bail!("{}: is no data directory", path.display());
        }
        writeln!(
            out,
            "backup {}: {} files, {} bytes; copied {} files, {} bytes; removed {}",
            made.name, made.files, made.bytes, made.copied_files, made.copied_bytes, made.removed
        )?;
        Ok(())
    }
}

/// Files that a running server has linked; let go of when this is dropped.
struct State {
    server: String,
    dir: PathBuf,
}

impl State {
    fn of(server: &str) -> anyhow::Result<Self> {
        let url = format!("{server}/backup/state");
        let answer = client::request("POST", &url, &[], LINK_TIMEOUT)?;
        let text = String::from_utf8_lossy(&answer.body);
        if answer.status != 200 {
            bail!("{}", text.trim_end());
        }
        let server = server.to_owned();
        let dir = PathBuf::from(text.trim_end());
        Ok(Self { server, dir })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let url = format!("{}/backup/state?name={name}", self.server);
        let released = client::request("DELETE", &url, &[], LINK_TIMEOUT);
        if !released.is_ok_and(|answer| answer.status == 204) {
            // The next start of the server removes it.
            let _ = writeln!(
                std::io::stderr(),
                "watchpost: {} is left; remove it",
                self.dir.display()
            );
        }
    }
}
