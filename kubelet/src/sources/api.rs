//! The pods that are bound to this node.

use client::informer::{Event as Change, Informer};
use client::{Client, ListOptions};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use crate::sync_loop::{Event, Source};

/// Lives as long as the informer is held.
pub fn start(client: &Client, node_name: &str, tx: mpsc::UnboundedSender<Event>) -> Informer<Pod> {
    let options = ListOptions::fields(format!("spec.nodeName={node_name}"));
    // Managed fields are the larger part of many pods and of no use here.
    let informer = Informer::new(client.all::<Pod>(), options)
        .transform(|pod: &mut Pod| pod.metadata.managed_fields = None);
    informer.on_event(move |change| {
        let event = match change {
            Change::Added(pod) => Event::Pod(pod.clone()),
            Change::Modified(_, pod) => Event::Pod(pod.clone()),
            Change::Deleted(pod) => Event::Removed(pod.clone()),
            Change::Synced => Event::Synced(Source::Api),
        };
        // The loop ends only with the process.
        let _ = tx.send(event);
    });
    informer.start();
    informer
}
