//! systemd's notification protocol: READY=1, STATUS=, WATCHDOG=1 on the datagram socket named by NOTIFY_SOCKET.
//!
//! The variable is never unset: a child or a later ping may need it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use parking_lot::Mutex;

use crate::health::Health;

static GUARD: Mutex<Option<Health>> = Mutex::new(None);
/// What the daemon said last of itself, for when a failing check no longer hides it.
static STATUS: Mutex<String> = Mutex::new(String::new());

/// The daemon serves. What it does, for the administrator who asks `systemctl status`, follows by [`status`].
pub fn ready() {
    send("READY=1");
}

pub fn stopping() {
    send("STOPPING=1\nSTATUS=Stopping: work in flight is finished");
}

/// One line on what the daemon does now.
pub fn status(text: &str) {
    let text = text.replace('\n', " ");
    show(&text);
    *STATUS.lock() = text;
}

fn show(text: &str) {
    send(&format!("STATUS={text}"));
}

/// From now on the watchdog is pinged only while the liveness checks of `health` pass; a failing one is
/// named in STATUS= before systemd acts.
pub fn guard(health: &Health) {
    *GUARD.lock() = Some(health.clone());
}

/// Pings the watchdog twice in each WATCHDOG_USEC for as long as the runtime turns. Returns at once without one.
pub(crate) async fn watchdog() {
    let Some(interval) = watchdog_interval() else {
        return;
    };
    let mut failed = false;
    loop {
        let failing = GUARD.lock().as_ref().and_then(Health::failing_live);
        match &failing {
            None => {
                send("WATCHDOG=1");
                if failed {
                    show(&STATUS.lock());
                }
            }
            Some(check) => {
                tracing::error!(check = %check, "Liveness check fails, the systemd watchdog is not pinged");
                show(&format!("Liveness check fails: {check}").replace('\n', " "));
            }
        }
        failed = failing.is_some();
        tokio::time::sleep(interval).await;
    }
}

fn watchdog_interval() -> Option<Duration> {
    if let Ok(pid) = std::env::var("WATCHDOG_PID")
        && pid != std::process::id().to_string()
    {
        return None;
    }
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros / 2))
}

fn send(message: &str) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send_to(&path, message) {
        tracing::warn!(socket = %path, err = %error, "Cannot notify systemd");
    }
}

fn send_to(path: &str, message: &str) -> io::Result<()> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_path_and_abstract_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        send_to(path.to_str().unwrap(), "READY=1").unwrap();
        let name = format!("ferrokube-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send_to(&format!("@{name}"), "STATUS=x").unwrap();
        let mut buffer = [0; 64];
        let length = by_path.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        let length = by_name.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STATUS=x");
    }
}
