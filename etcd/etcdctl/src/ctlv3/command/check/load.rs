//! Clients that put keys as fast as they are handed out, and how long each took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use etcd_api::etcdserverpb::PutRequest;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::progress::Progress;
use crate::client::{Client, Context};

/// What came of all puts.
#[derive(Default)]
pub struct Report {
    /// Seconds of each put that succeeded.
    latencies: Vec<f64>,
    pub errors: BTreeMap<String, usize>,
    elapsed: Duration,
}

impl Report {
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn slowest(&self) -> f64 {
        self.latencies.iter().copied().fold(0.0, f64::max)
    }

    pub fn deviation(&self) -> f64 {
        let count = self.latencies.len() as f64;
        let average = self.latencies.iter().sum::<f64>() / count;
        let squares = self.latencies.iter().map(|latency| (latency - average).powi(2));
        (squares.sum::<f64>() / count).sqrt()
    }

    fn add(&mut self, other: Report) {
        self.latencies.extend(other.latencies);
        other
            .errors
            .into_iter()
            .for_each(|(error, count)| *self.errors.entry(error).or_default() += count);
    }
}

type Requests = Arc<Mutex<mpsc::Receiver<PutRequest>>>;

/// Runs until the sender of `requests` is gone.
pub async fn run(
    clients: &[Client],
    requests: mpsc::Receiver<PutRequest>,
    progress: Option<Arc<Progress>>,
) -> Report {
    let start = Instant::now();
    let requests: Requests = Arc::new(Mutex::new(requests));
    let mut workers = JoinSet::new();
    for client in clients {
        workers.spawn(worker(client.clone(), requests.clone(), progress.clone()));
    }
    let mut report = Report::default();
    while let Some(worker) = workers.join_next().await {
        // A worker neither panics nor is aborted.
        report.add(worker.unwrap_or_default());
    }
    report.elapsed = start.elapsed();
    report
}

async fn worker(client: Client, requests: Requests, progress: Option<Arc<Progress>>) -> Report {
    let mut report = Report::default();
    loop {
        let next = requests.lock().await.recv().await;
        let Some(request) = next else { return report };
        let start = Instant::now();
        match client.put(&Context::background(), request).await {
            Ok(_) => report.latencies.push(start.elapsed().as_secs_f64()),
            Err(error) => *report.errors.entry(error.to_string()).or_default() += 1,
        }
        if let Some(progress) = &progress {
            progress.add(1);
        }
    }
}

/// A key of `size` bytes under the prefix, random in its first few, and a value of zeros.
pub fn request(prefix: &str, size: usize, value: &Bytes) -> PutRequest {
    let mut key = BytesMut::with_capacity(prefix.len() + size);
    key.extend_from_slice(prefix.as_bytes());
    let mut number = (rand::random::<u64>() >> 1) << 1;
    while number >= 0x80 {
        key.extend_from_slice(&[(number as u8) | 0x80]);
        number >>= 7;
    }
    key.extend_from_slice(&[number as u8]);
    key.resize(prefix.len() + size, 0);
    PutRequest {
        key: key.freeze(),
        value: value.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_puts_that_succeeded() {
        let mut report = Report {
            elapsed: Duration::from_secs(2),
            ..Report::default()
        };
        report.add(Report {
            latencies: vec![1.0, 3.0],
            ..Report::default()
        });
        report.add(Report {
            errors: BTreeMap::from([("x".to_owned(), 2)]),
            ..Report::default()
        });
        assert_eq!(
            (report.rate(), report.slowest(), report.deviation()),
            (1.0, 3.0, 1.0)
        );
        assert_eq!(report.errors["x"], 2);
    }

    #[test]
    fn keys_have_their_size() {
        assert_eq!(request("/p/", 256, &Bytes::new()).key.len(), 259);
    }
}
