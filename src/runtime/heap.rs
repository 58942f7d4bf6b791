//! The allocator of the process, glibc's: what it was asked for, and what it keeps of that.
//!
//! Caches and blocks leave small holes between what lives on. glibc gives only the end of its heap
//! back by itself, so the process would occupy what it occupied at its worst moment, and the worst
//! moments of weeks add up. Other allocators look after themselves: nothing is done there.

use std::time::Duration;

use super::shutdown::Shutdown;

/// It takes some milliseconds for 100 MB, during which nobody can allocate from the same arena.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(30);

/// Has pages that are wholly free given back to the system again and again.
pub fn give_back_regularly(shutdown: &Shutdown) {
    let mut shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(GIVE_BACK_EVERY) => {}
                () = shutdown.wait() => return,
            }
            if tokio::task::spawn_blocking(give_back).await.is_err() {
                return; // The runtime ends.
            }
        }
    });
}

fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer and may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that are allocated; `None` where the allocator does not say.
pub fn allocated() -> Option<usize> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallinfo2 takes nothing and may be called at any time by any thread.
        let info = unsafe { libc::mallinfo2() };
        Some(info.uordblks + info.hblkhd)
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_told() {
        let before = allocated().expect("glibc tells");
        let large = vec![1u8; 64 << 20];
        let with = allocated().expect("glibc tells");
        assert!(
            with >= before + (32 << 20),
            "{before} {with}, others free as well"
        );
        drop(std::hint::black_box(large));
        give_back();
    }
}
