//! Telling every part that the process ends.

use tokio::sync::watch;

/// Held by whoever decides; dropping it or calling [`Trigger::fire`] ends all [`Shutdown`]s.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Waits for the end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A connected pair.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns when the process is to end.
    pub async fn wait(&mut self) {
        // An error means that the trigger is gone: an end as well.
        let _ = self.0.wait_for(|ended| *ended).await;
    }

    pub fn is_ended(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
