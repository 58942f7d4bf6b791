//! Commands on data directories.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::{Source, client, health_url, instant, percent_encode};
use crate::config::Config;
use crate::model::TimeRange;
use crate::server::loki::export::{ExportRequest, ExportSignal};

/// A server that gives nothing for so long is stuck.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(120);

/// Copies a directory.
pub type CopyFrom<'a> = dyn FnMut(&Path) -> anyhow::Result<()> + 'a;

/// What the commands need of the store.
pub struct DataParts {
    /// Prints what is damaged; whether nothing is.
    pub verify: fn(&Path, &mut dyn Write) -> anyhow::Result<bool>,
    /// Prints what was done and lost; whether all is whole now.
    pub repair: fn(&Path, &mut dyn Write) -> anyhow::Result<bool>,
    /// Exports from a directory that no process has open.
    pub export: fn(&Config, ExportRequest, &mut dyn Write) -> anyhow::Result<()>,
    /// Hands a directory that no process has open to who copies it, and keeps it so meanwhile.
    pub backup: fn(&Path, &mut CopyFrom<'_>) -> anyhow::Result<()>,
    /// Whether a process has the directory open.
    pub is_in_use: fn(&Path) -> bool,
}

pub fn code(well: bool) -> ExitCode {
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Signal {
    Logs,
    Traces,
}

#[derive(Debug, Args)]
pub struct Export {
    /// For logs a query such as `{app="api"} |= "error"`; for traces a selector of spans such as
    /// `{service="shop", http_status_code="500"}`, or `{}`.
    #[arg(long)]
    query: String,
    /// Begin here: RFC 3339 or Unix seconds. By default at the beginning.
    #[arg(long, value_parser = instant)]
    from: Option<i64>,
    /// End before this. By default at the end.
    #[arg(long, value_parser = instant)]
    to: Option<i64>,
    #[arg(long, value_enum, default_value = "logs")]
    signal: Signal,
    /// Tenant, for servers with tenancy.
    #[arg(long)]
    tenant: Option<String>,
    /// Ask this server. By default the one that the configuration names, if it runs on the data
    /// directory; else the directory is read.
    #[arg(long, value_name = "URL")]
    addr: Option<String>,
    #[command(flatten)]
    source: Source,
}

impl Export {
    pub fn run(self, parts: &DataParts, out: &mut dyn Write) -> anyhow::Result<()> {
        let request = ExportRequest {
            query: self.query,
            range: TimeRange::new(self.from.unwrap_or(i64::MIN), self.to.unwrap_or(i64::MAX)),
            signal: match self.signal {
                Signal::Logs => ExportSignal::Logs,
                Signal::Traces => ExportSignal::Traces,
            },
            tenant: self.tenant.unwrap_or_default().into(),
        };
        if let Some(addr) = self.addr {
            return ask(&addr, &request, out);
        }
        let config = self.source.load()?.config;
        if (parts.is_in_use)(&config.storage.path) {
            let ready = health_url(&config).context("a server runs on the directory")?;
            return ask(ready.trim_end_matches("/ready"), &request, out);
        }
        (parts.export)(&config, request, out)
    }
}

/// Has a running server export.
fn ask(addr: &str, request: &ExportRequest, out: &mut dyn Write) -> anyhow::Result<()> {
    let signal = match request.signal {
        ExportSignal::Logs => "logs",
        ExportSignal::Traces => "traces",
    };
    let mut url = format!(
        "{}/export?query={}&signal={signal}",
        addr.trim_end_matches('/'),
        percent_encode(&request.query),
    );
    if request.range.start > i64::MIN {
        url.push_str(&format!("&start={}", request.range.start));
    }
    if request.range.end < i64::MAX {
        url.push_str(&format!("&end={}", request.range.end));
    }
    let tenant = (!request.tenant.is_empty()).then_some(("X-Scope-OrgID", &*request.tenant));
    let mut begun = client::open("GET", &url, tenant.as_slice(), EXPORT_TIMEOUT)?;
    if begun.status != 200 {
        let mut text = String::new();
        let _ = io::Read::read_to_string(&mut begun.body, &mut text);
        bail!("{}", text.trim_end());
    }
    io::copy(&mut begun.body, out)?;
    out.flush()?;
    Ok(())
}
