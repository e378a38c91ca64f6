//! The kubelet's own API: logs, exec, stats, health, metrics.

use std::sync::Arc;

use anyhow::Result;
use client::Client;
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::health::Health;
use tokio::sync::mpsc;

use crate::kubelet::Kubelet;
use crate::kubelet_config::KubeletConfiguration;
use crate::sync_loop::Event;

pub async fn start(
    _config: &KubeletConfiguration,
    _flags: &Flags,
    _kubelet: &Arc<Kubelet>,
    _client: Option<&Client>,
    _health: &Health,
    _tx: &mpsc::UnboundedSender<Event>,
    _drain: &Drain,
) -> Result<()> {
    Ok(())
}
