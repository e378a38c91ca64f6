//! The CPU clock of another process. The one place of this crate that calls what the compiler cannot check.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// What all its threads have used so far, those that have ended too: in nanoseconds, where /proc counts hundredths of a second.
pub fn of(pid: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: it writes one clock id, which lives on this stack.
    let failed = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes one timespec, which lives on this stack.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}
