//! The allocator of the process, jemalloc, for RocksDB's memory as well as ours.
//!
//! Caches and blocks leave small holes between what lives on. glibc's malloc kept ever more of them
//! (docs/benchmarks.md, "Soak"); jemalloc gives pages back seconds after they were freed.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Read by jemalloc before anything else runs (jemalloc(3), "TUNING"). With its default of four
/// arenas a core, what one thread frees is not found by another. Freed pages go back after a
/// second, by a thread that does this also while nobody allocates.
#[used]
#[unsafe(export_name = "malloc_conf")]
static CONFIGURATION: Configuration =
    Configuration(c"narenas:2,background_thread:true,max_background_threads:1,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr());

#[repr(transparent)]
struct Configuration(*const std::ffi::c_char);

// SAFETY: it points to a literal, which nobody writes.
unsafe impl Sync for Configuration {}

/// Bytes that are allocated; `None` when the allocator does not say.
pub fn allocated() -> Option<usize> {
    // What it says is of the last epoch that began.
    tikv_jemalloc_ctl::epoch::advance().ok()?;
    tikv_jemalloc_ctl::stats::allocated::read().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_told() {
        let before = allocated().expect("jemalloc tells");
        let large = vec![1u8; 64 << 20];
        let with = allocated().expect("jemalloc tells");
        assert!(
            with >= before + (32 << 20),
            "{before} and {with} with {} bytes more",
            large.len()
        );
    }

    #[test]
    fn the_allocator_has_read_its_configuration() {
        assert_eq!(tikv_jemalloc_ctl::opt::narenas::read(), Ok(2));
        assert_eq!(tikv_jemalloc_ctl::background_thread::read(), Ok(true));
    }
}
