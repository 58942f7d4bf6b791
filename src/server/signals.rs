//! Signals, as words.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// What an operator can ask of a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM or SIGINT: end in order. Asked a second time: end now.
    Stop,
    /// SIGUSR1: seal everything and commit the indices.
    Flush,
    /// SIGHUP: the configuration changed.
    Reload,
}

/// Listens from the moment it exists; before, the defaults of the system hold.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    user: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next signal. Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
            _ = self.user.recv() => Asked::Flush,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn signals_are_heard() {
        let mut signals = Signals::listen().expect("listens");
        for (sent, heard) in [
            (libc::SIGUSR1, Asked::Flush),
            (libc::SIGHUP, Asked::Reload),
            (libc::SIGTERM, Asked::Stop),
        ] {
            let pid = rustix::process::getpid();
            let signal = rustix::process::Signal::from_named_raw(sent).expect("a signal");
            rustix::process::kill_process(pid, signal).expect("sent");
            assert_eq!(signals.next().await, heard);
        }
    }
}
