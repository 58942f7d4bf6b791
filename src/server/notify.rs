//! Telling systemd how we are. Without systemd all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::runtime::shutdown::Shutdown;

/// Pushes are accepted; `status` is shown by `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What goes on, such as the progress of a replay.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Starting takes longer than usual: `by` more from now.
pub fn extend_timeout(by: Duration) {
    let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Tells the watchdog that we live, as often as it wants, while `is_alive` says so.
/// Returns at once if there is no watchdog.
pub async fn watchdog(is_alive: impl Fn() -> bool, mut shutdown: Shutdown) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    // Half the limit is what systemd asks for; a third leaves room for a slow moment.
    let mut tick = tokio::time::interval((limit / 3).max(Duration::from_millis(100)));
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = tick.tick() => {
                if is_alive() {
                    tell(&[NotifyState::Watchdog]);
                }
            }
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd did not listen");
    }
}
