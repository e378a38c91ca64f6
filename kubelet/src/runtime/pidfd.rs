//! Waiting for a process to end, by its pidfd. The one place of this crate that promises something the compiler cannot check.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns when the process has exited.
pub async fn exited(pidfd: OwnedFd) -> io::Result<()> {
    // SAFETY: an OwnedFd names the same open descriptor until it is dropped, and the AsyncFd owns it until then.
    let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    let fd = registered.map_err(io::Error::from)?;
    fd.readable().await.map(drop)
}
