//! Clients and watchers under faults, judged by the checker: nothing acknowledged is lost, nothing read is untrue, no watch has a gap.

use std::time::Duration;

use crate::harness::Etcd;
use crate::network::Address;
use crate::traffic::Traffic;

const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_breaks_no_promise() {
    let mut etcd = Etcd::start_with(&["--watch-progress-notify-interval=100ms"]);
    let traffic = Traffic::start(&[Address::here(etcd.port)], 1);
    for _ in 0..ROUNDS {
        traffic.progress(300).await;
        etcd.kill();
        tokio::time::sleep(Duration::from_millis(50)).await;
        etcd.start_again();
    }
    traffic.progress(100).await;
    traffic.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_breaks_no_promise() {
    let etcd = Etcd::start_with(&["--watch-progress-notify-interval=100ms"]);
    let traffic = Traffic::start(&[Address::here(etcd.port)], 2);
    for _ in 0..3 {
        traffic.progress(300).await;
        etcd.signal("STOP");
        tokio::time::sleep(Duration::from_millis(700)).await;
        etcd.signal("CONT");
    }
    traffic.progress(100).await;
    traffic.judge().await;
}
