//! mimalloc, as a daemon wants it. The one place of this crate that calls what the compiler cannot check.
#![allow(unsafe_code)]

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

/// `mi_option_purge_delay`: the crate names no experimental options.
const PURGE_DELAY: mi_option_t = 15;
const PURGE_DELAY_MS: std::ffi::c_long = 1;

/// Free memory goes back to the kernel at once, not after a second in which something else is freed, which may never come: after a burst of
/// a thousand requests etcd stayed at 60 MiB, and so stays at 14. To be called before any thread is started.
pub fn give_back_soon() {
    // SAFETY: it stores a number into a table; the caller has no other threads yet, which is all that it asks for.
    unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) }
}

/// Looks over the calling thread's memory for what others have freed meanwhile: of itself a thread finds that only when it allocates more of
/// the same size. For threads that live long, from time to time or before a long wait.
pub fn collect() {
    // SAFETY: it changes nothing but the calling thread's own lists of free memory.
    unsafe { mi_collect(false) }
}
