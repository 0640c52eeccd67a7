//! The store program. Everything is in the library, so that tests and simulation run the same.

/// The static program's allocator, for Rust and C alike: musl's own took a quarter to a third more of
/// the processor (docs/benchmarks.md).
#[cfg(target_env = "musl")]
mod allocator {
    #[global_allocator]
    static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

    /// How many milliseconds free memory is kept. The crate does not name it: it follows this one in
    /// mimalloc's list.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_eager_commit_delay + 1;

    /// Memory that is free goes back to the system at once: a till has little, and the allocator would
    /// hold twice of it.
    #[allow(unsafe_code)]
    pub fn keep_nothing() {
        // SAFETY: sets a number; no other thread runs yet.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
    }
}

fn main() -> std::process::ExitCode {
    #[cfg(target_env = "musl")]
    allocator::keep_nothing();
    ribera_agent::cli::main()
}
