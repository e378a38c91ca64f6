//! How many connections there may be: what the file descriptors allow, shared out so that clients cannot take those of the store and the peers.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// For segments, logs and peers; a quarter where there are few descriptors.
const RESERVED: u64 = 1024;
/// Of all client listeners together. An idle connection costs some ten kilobytes.
const MAX_CLIENTS: u64 = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Of each client listener.
    pub clients: usize,
    /// Of each peer listener.
    pub peers: usize,
}

/// Raises the soft limit to the hard one, as Go's runtime does, and shares the descriptors out.
pub fn share(client_listeners: usize, peer_listeners: usize) -> Connections {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(error = %error, "cannot raise the limit of open files to its maximum");
            limit.current
        }
    };
    let connections = shared(current.unwrap_or(u64::MAX), client_listeners, peer_listeners);
    info!(
        "open-files" = current.unwrap_or(u64::MAX),
        "client-connections" = connections.clients,
        "peer-connections" = connections.peers,
        "connections of each listener are limited"
    );
    connections
}

fn shared(descriptors: u64, client_listeners: usize, peer_listeners: usize) -> Connections {
    let reserved = RESERVED.min(descriptors / 4);
    let of_each = |all: u64, listeners: usize| (all as usize / listeners.max(1)).max(1);
    Connections {
        clients: of_each((descriptors - reserved).min(MAX_CLIENTS), client_listeners),
        peers: of_each(reserved / 2, peer_listeners),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_to_files_and_peers() {
        for descriptors in [0, 1, 256, 1024, 20_000, u64::MAX] {
            let Connections { clients, peers } = shared(descriptors, 2, 1);
            assert!(clients >= 1 && peers >= 1);
            assert!(descriptors < 16 || (2 * clients + 2 * peers) as u64 <= descriptors);
        }
        let many = shared(1 << 20, 1, 1);
        assert_eq!((many.clients, many.peers), (65_536, 512));
    }
}
