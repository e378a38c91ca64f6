//! Ports for the processes that tests start.

use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Below those that the kernel gives to outgoing connections and to Services: nobody takes them by chance.
const PORTS: std::ops::Range<u16> = 10_240..30_000;

/// One on loopback that was free a moment ago, and is given to nobody else as long as this process lives.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    loop {
        let port = rand::random_range(PORTS);
        if let Ok(reserved) = reserve(port)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            GIVEN
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(reserved);
            return port;
        }
    }
}

/// Tests run in many processes: a name that the kernel gives to one of them, and takes back when it ends.
fn reserve(port: u16) -> io::Result<UnixListener> {
    let name = format!("ferrokube-test-port-{port}");
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_given_is_given_to_nobody_else() {
        let port = free_port();
        assert!(reserve(port).is_err());
    }
}
