//! Signals for a process that may be PID 1: block them, then wait for them.
//!
//! The kernel drops a signal with default disposition that is sent to PID 1, but never one that is blocked.
//! So nothing here installs a handler.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Which of the awaited signals came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGCHLD.
    Child,
}

/// SIGTERM, SIGINT and SIGCHLD, blocked for this thread and for every thread it spawns afterwards.
pub struct Blocked(libc::sigset_t);

impl Blocked {
    /// Call before the first thread is spawned: other threads would still take the default action.
    pub fn new() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set it is given; the others then read an initialised set.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            set.assume_init()
        };
        // SAFETY: `set` is initialised and a null old set is allowed.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) } {
            0 => Ok(Self(set)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Sleeps until one of the signals arrives.
    pub fn wait(&self) -> Signal {
        loop {
            // SAFETY: the set is initialised and a null siginfo is allowed.
            match unsafe { libc::sigwaitinfo(&self.0, ptr::null_mut()) } {
                libc::SIGCHLD => return Signal::Child,
                libc::SIGTERM | libc::SIGINT => return Signal::Terminate,
                // EINTR after a stop and continue; nothing else can fail with a valid set.
                _ => {}
            }
        }
    }
}

/// Collects every child that has exited. One SIGCHLD may stand for many of them.
pub fn reap_children() {
    // SAFETY: waitpid with a null status writes nothing.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
}
