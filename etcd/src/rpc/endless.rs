//! Streams without an end of their own: they end when this member stops, and for clients that require a leader (`hasleader: true`) when there
//! was none for a while. Such clients are refused as long as there is none.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use http::Request;

use crate::server::{EtcdServer, ServerError};

/// A stream that breaks costs more than a request that is refused: etcd waits for so many election timeouts without a leader.
const MAX_NO_LEADER: u32 = 3;

/// All others end by themselves.
const METHODS: &[&str] = &[
    "etcdserverpb.Watch/Watch",
    "etcdserverpb.Lease/LeaseKeepAlive",
    "v3electionpb.Election/Observe",
    "grpc.health.v1.Health/Watch",
];

pub fn is_endless(method: &str) -> bool {
    METHODS.contains(&method)
}

pub fn requires_leader<B>(request: &Request<B>) -> bool {
    let value = request.headers().get("hasleader");
    value.is_some_and(|value| value == "true")
}

impl EtcdServer {
    /// Cancels the streams that require a leader whenever there has been none for too long.
    pub async fn monitor_leader(self: Arc<Self>) {
        let mut without = 0;
        loop {
            tokio::time::sleep(self.limits.election).await;
            without = match self.leader() {
                0 => without + 1,
                _ => 0,
            };
            if without >= MAX_NO_LEADER {
                self.leader_lost.send_replace(());
            }
        }
    }

    /// Nobody has to wait for the end of what has none.
    pub fn end_streams(&self) {
        self.stopping.send_replace(true);
        self.state.v2.write().end_watches();
    }
}

/// What ends a stream that has no end of its own.
pub type Told = Pin<Box<dyn Future<Output = ServerError> + Send>>;

pub fn told(server: &EtcdServer, requires_leader: bool) -> Told {
    let mut stopping = server.stopping.subscribe();
    let mut lost = requires_leader.then(|| server.leader_lost.subscribe());
    // Their senders are the server's own.
    Box::pin(async move {
        let lost = async {
            match &mut lost {
                Some(lost) => drop(lost.changed().await),
                None => pending().await,
            }
        };
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => ServerError::Stopped,
            () = lost => ServerError::NoLeader,
        }
    })
}
