//! The process's own log, on stderr: text for a terminal, JSON for machines.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Text,
    Json,
}

/// Shows and changes the filter of the running log. Cheap to clone.
#[derive(Clone)]
pub struct LogLevel {
    now: Arc<Mutex<String>>,
    change: Arc<Change>,
}

/// Puts another filter in effect.
type Change = dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync;

impl LogLevel {
    /// The filter in effect, as it was written.
    pub fn now(&self) -> String {
        self.now.lock().clone()
    }

    /// Takes another filter, such as `debug` or `info,watchpost::store=debug`, until the end
    /// of the process.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = parse(filter)?;
        let mut now = self.now.lock();
        (self.change)(parsed)?;
        filter.clone_into(&mut now);
        Ok(())
    }
}

/// The filter of a text that names a level, alone or by module.
fn parse(filter: &str) -> Result<EnvFilter, String> {
    // A lone word that is no level would be taken for the name of a module.
    let form = "use error, warn, info, debug or trace, or by module such as info,watchpost=debug";
    if filter.trim().is_empty() || filter.len() > MAX_FILTER_BYTES {
        return Err(format!("unrecognized log level {filter:?}; {form}"));
    }
    let is_level = |text: &str| text.trim().parse::<LevelFilter>().is_ok();
    let part_is_fine = |part: &str| part.contains('=') || is_level(part);
    if !filter.split(',').all(part_is_fine) {
        return Err(format!("unrecognized log level {filter:?}; {form}"));
    }
    EnvFilter::try_new(filter).map_err(|e| format!("unrecognized log level {filter:?}: {e}"))
}

/// Longest filter taken while running.
const MAX_FILTER_BYTES: usize = 1024;

/// Starts logging. `filter` is an EnvFilter text such as `info` or `info,watchpost=debug`.
/// Fails on a bad filter, or when a logger was set already.
pub fn init(filter: &str, format: Format) -> Result<LogLevel, String> {
    let parsed = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let change: Arc<Change> = match format {
        Format::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init().map_err(|e| e.to_string())?;
            Arc::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()))
        }
        Format::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init().map_err(|e| e.to_string())?;
            Arc::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()))
        }
    };
    Ok(LogLevel {
        now: Arc::new(Mutex::new(filter.to_owned())),
        change,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_taken_and_a_word_that_is_none_is_not() {
        let taken = Arc::new(Mutex::new(0));
        let level = LogLevel {
            now: Arc::new(Mutex::new("info".into())),
            change: {
                let taken = taken.clone();
                Arc::new(move |_| {
                    *taken.lock() += 1;
                    Ok(())
                })
            },
        };
        assert_eq!(level.set("debug"), Ok(()));
        assert_eq!(level.now(), "debug");
        assert_eq!(level.set("warn,watchpost::store=trace"), Ok(()));
        for bad in [
            "",
            "loud",
            "info,verbose",
            "watchpost=loud",
            &"x,".repeat(1000),
        ] {
            assert!(level.set(bad).is_err(), "{bad}");
        }
        assert_eq!(
            (level.now(), *taken.lock()),
            ("warn,watchpost::store=trace".into(), 2)
        );
    }
}
