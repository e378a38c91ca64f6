//! Ports for the processes that tests start.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// Below those that the kernel gives to outgoing connections and to Services: nobody takes them by chance.
const PORTS: std::ops::Range<u16> = 10_240..30_000;

/// One on loopback that was free a moment ago, and was not given to anybody else in this process.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::random_range(PORTS);
        let is_new = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        if is_new && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
