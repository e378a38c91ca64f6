//! Clients that write down what they ask and hear, for the checker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::watch_client::WatchClient;
use etcd_api::etcdserverpb::watch_request::RequestUnion;
use etcd_api::etcdserverpb::{CompactionRequest, WatchCreateRequest, WatchRequest};
use etcd_api::mvccpb::Event;
use etcd_checker::history::{Answer, Change};
use etcd_checker::requests::{delete, guarded, guarded_response, put, range};
use etcd_checker::watch::{Seen, Watched};
use etcd_checker::{Operation, Request, Response, Timeline, serializable, watch};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::network::Address;

const KEYS: usize = 10;
const CLIENTS: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(5);
const AFTER_ERROR: Duration = Duration::from_millis(20);
/// How far behind the collector compaction stays.
const HISTORY: i64 = 100;
const COMPACTION_INTERVAL: Duration = Duration::from_millis(300);

/// What happens while members are killed, paused and cut off.
pub struct Traffic {
    began: Instant,
    members: Vec<Address>,
    stop: Arc<AtomicBool>,
    /// Up to where the collector has all events.
    collected: Arc<AtomicI64>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Operation>>>,
    collector: JoinHandle<()>,
    events: Arc<Mutex<Vec<Event>>>,
    watchers: Vec<JoinHandle<Vec<(Watched, Vec<Seen>)>>>,
    compactor: JoinHandle<()>,
}

impl Traffic {
    pub fn start(members: &[Address], seed: u64) -> Traffic {
        Traffic::start_with_values(members, seed, 0)
    }

    /// With values of at least so many bytes.
    pub fn start_with_values(members: &[Address], seed: u64, value_bytes: usize) -> Traffic {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let (collected, answered) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicU64::new(0)));
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let member = |index: usize| &members[index % members.len()];
        let client = |index: usize| {
            let client = Client {
                kv: KvClient::new(member(index).channel()),
                began,
                random: StdRng::seed_from_u64(seed + index as u64),
                known: HashMap::new(),
                number: index,
                count: 0,
                value_bytes,
            };
            tokio::spawn(client.run(stop.clone(), answered.clone()))
        };
        let watched = |index: usize| {
            let request = WatchCreateRequest {
                key: Bytes::from_static(b"k/"),
                range_end: Bytes::from_static(b"k0"),
                prev_kv: index.is_multiple_of(2),
                progress_notify: true,
                ..WatchCreateRequest::default()
            };
            tokio::spawn(watch_again_and_again(
                member(index).clone(),
                request,
                stop.clone(),
            ))
        };
        Traffic {
            began,
            members: members.to_vec(),
            clients: (0..CLIENTS).map(client).collect(),
            watchers: (0..3).map(watched).collect(),
            collector: tokio::spawn(collect(member(0).clone(), events.clone(), collected.clone())),
            compactor: tokio::spawn(compact(member(1).clone(), stop.clone(), collected.clone())),
            stop,
            events,
            collected,
            answered,
        }
    }

    /// Waits until `count` more operations were answered: the faults have not stopped it.
    pub async fn progress(&self, count: u64) {
        let wanted = self.answered.load(Ordering::SeqCst) + count;
        let deadline = Instant::now() + 4 * crate::harness::PATIENCE;
        while self.answered.load(Ordering::SeqCst) < wanted {
            assert!(
                Instant::now() < deadline,
                "no progress: {} of {wanted} operations",
                self.answered.load(Ordering::SeqCst)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it with every member up, and judges what was seen.
    pub async fn judge(self) {
        self.stop.store(true, Ordering::SeqCst);
        let mut operations = Vec::new();
        for client in self.clients {
            operations.extend(client.await.unwrap());
        }
        let mut last = Client {
            kv: KvClient::new(self.members[0].channel()),
            began: self.began,
            random: StdRng::seed_from_u64(0),
            known: HashMap::new(),
            number: usize::MAX,
            count: 0,
            value_bytes: 0,
        };
        let end = last.operation(Request::List).await;
        let revision = end.answer.as_ref().expect("every member is up").revision;
        operations.push(end);
        let deadline = Instant::now() + crate::harness::PATIENCE;
        while self.collected.load(Ordering::SeqCst) < revision {
            assert!(
                Instant::now() < deadline,
                "a watch from 1 does not come to {revision}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.collector.abort();
        self.compactor.await.unwrap();
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        let timeline = Timeline::new(events).unwrap_or_else(|untrue| panic!("{untrue}"));
        serializable::check(&operations, &timeline).unwrap_or_else(|violation| panic!("{violation}"));
        for watcher in self.watchers {
            for (watched, seen) in watcher.await.unwrap() {
                watch::check(&watched, &seen, &timeline)
                    .unwrap_or_else(|violation| panic!("{watched:?}: {violation}"));
            }
        }
        let answered = operations
            .iter()
            .filter(|operation| operation.answer.is_some())
            .count();
        assert!(answered > 100, "only {answered} operations were answered");
    }
}

struct Client {
    kv: KvClient<Channel>,
    began: Instant,
    random: StdRng,
    /// Where this client last saw each key changed.
    known: HashMap<Bytes, i64>,
    number: usize,
    count: usize,
    value_bytes: usize,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> Vec<Operation> {
        let mut operations = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let request = self.request();
            let operation = self.operation(request).await;
            match &operation.answer {
                Some(answer) => {
                    answered.fetch_add(1, Ordering::SeqCst);
                    self.learn(&operation.request, answer);
                }
                None => tokio::time::sleep(AFTER_ERROR).await,
            }
            operations.push(operation);
        }
        operations
    }

    /// As Kubernetes mixes them: mostly guarded updates, few blind ones.
    fn request(&mut self) -> Request {
        let key = Bytes::from(format!("k/{}", self.random.random_range(0..KEYS)));
        self.count += 1;
        let name = format!("{}-{}", self.number, self.count);
        let value = Bytes::from(format!("{name:<width$}", width = self.value_bytes));
        let expected = self.known.get(&key).copied().unwrap_or(0);
        match self.random.random_range(0..100) {
            0..20 => Request::Get { key },
            20..30 => Request::List,
            30..40 => Request::Put { key, value },
            40..45 => Request::Delete { key },
            45..55 if expected > 0 => Request::Guarded {
                key,
                expected,
                change: Change::Delete,
            },
            _ => Request::Guarded {
                key,
                expected,
                change: Change::Put(value),
            },
        }
    }

    fn learn(&mut self, request: &Request, answer: &Answer) {
        if let Some(key) = request.key().cloned() {
            self.known.insert(key, answer.changed_at(request));
        }
    }

    async fn operation(&mut self, request: Request) -> Operation {
        let called = self.began.elapsed().as_nanos() as u64;
        let answer = tokio::time::timeout(TIMEOUT, self.ask(&request)).await;
        let returned = self.began.elapsed().as_nanos() as u64;
        // Neither an error nor a timeout says that it did not happen.
        let answer = answer
            .ok()
            .and_then(Result::ok)
            .map(|(revision, response)| Answer {
                returned,
                revision,
                response,
            });
        Operation {
            called,
            request,
            answer,
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<(i64, Response), tonic::Status> {
        let revision = |header: Option<etcd_api::etcdserverpb::ResponseHeader>| {
            header.map_or(0, |header| header.revision)
        };
        match request {
            Request::Get { key } => {
                let response = self.kv.range(range(key)).await?.into_inner();
                Ok((
                    revision(response.header),
                    Response::Found(response.kvs.into_iter().next()),
                ))
            }
            Request::List => {
                let response = self.kv.range(crate::harness::prefix("k/")).await?.into_inner();
                Ok((revision(response.header), Response::Listed(response.kvs)))
            }
            Request::Put { key, value } => {
                let response = self.kv.put(put(key, value)).await?.into_inner();
                Ok((revision(response.header), Response::Put))
            }
            Request::Delete { key } => {
                let response = self.kv.delete_range(delete(key)).await?.into_inner();
                Ok((revision(response.header), Response::Deleted(response.deleted)))
            }
            Request::Guarded {
                key,
                expected,
                change,
            } => {
                let response = self.kv.txn(guarded(key, *expected, change)).await?.into_inner();
                Ok((revision(response.header), guarded_response(response)))
            }
        }
    }
}

/// Every event since the first revision, over as many connections as it takes.
async fn collect(member: Address, events: Arc<Mutex<Vec<Event>>>, collected: Arc<AtomicI64>) {
    let mut client = WatchClient::new(member.channel());
    loop {
        let request = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: collected.load(Ordering::SeqCst) + 1,
            ..WatchCreateRequest::default()
        };
        let Ok(mut responses) = open(&mut client, request).await else {
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        while let Ok(Some(response)) = responses.message().await {
            assert_eq!(response.compact_revision, 0, "compaction overtook the collector");
            let mut events = events.lock().unwrap();
            events.extend(response.events);
            if let Some(kv) = events.last().and_then(|event| event.kv.as_ref()) {
                collected.store(kv.mod_revision, Ordering::SeqCst);
            }
        }
    }
}

async fn open(
    client: &mut WatchClient<Channel>,
    request: WatchCreateRequest,
) -> Result<tonic::Streaming<etcd_api::etcdserverpb::WatchResponse>, tonic::Status> {
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(request)),
    };
    // The stream of requests stays open: its end would end the watch.
    let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
    Ok(client.watch(requests).await?.into_inner())
}

async fn compact(member: Address, stop: Arc<AtomicBool>, collected: Arc<AtomicI64>) {
    let mut kv = KvClient::new(member.channel());
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(COMPACTION_INTERVAL).await;
        let revision = collected.load(Ordering::SeqCst) - HISTORY;
        if revision > 1 {
            let request = CompactionRequest {
                revision,
                physical: false,
            };
            // While the member is down there is nothing to compact.
            tokio::time::timeout(TIMEOUT, kv.compact(request)).await.ok();
        }
    }
}

/// A watch that goes on where it broke off; what each connection brought is judged for itself.
async fn watch_again_and_again(
    member: Address,
    request: WatchCreateRequest,
    stop: Arc<AtomicBool>,
) -> Vec<(Watched, Vec<Seen>)> {
    let mut client = WatchClient::new(member.channel());
    let (mut lives, mut next) = (Vec::new(), 0);
    while !stop.load(Ordering::SeqCst) {
        let request = WatchCreateRequest {
            start_revision: next,
            ..request.clone()
        };
        let opened = tokio::time::timeout(TIMEOUT, open(&mut client, request.clone())).await;
        let Ok(Ok(responses)) = opened else {
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        let (watched, seen) = one_life(responses, &request, &stop).await;
        next = match seen.last() {
            Some(last) => {
                last.events.last().map_or(last.revision, |event| {
                    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
                }) + 1
            }
            // Compacted away, or nothing came: from now on.
            None => 0,
        };
        lives.push((watched, seen));
    }
    lives
}

async fn one_life(
    mut responses: tonic::Streaming<etcd_api::etcdserverpb::WatchResponse>,
    request: &WatchCreateRequest,
    stop: &AtomicBool,
) -> (Watched, Vec<Seen>) {
    let mut watched = Watched {
        key: request.key.clone(),
        prefix: true,
        start: request.start_revision,
        prev_kv: request.prev_kv,
    };
    let mut seen = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let response = match tokio::time::timeout(Duration::from_millis(200), responses.message()).await {
            Ok(Ok(Some(response))) => response,
            Ok(_) => break,
            Err(_) => continue,
        };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        match (response.created, response.canceled) {
            (_, true) => break,
            (true, _) if watched.start == 0 => watched.start = revision + 1,
            (true, _) => {}
            _ => seen.push(Seen {
                revision,
                events: response.events,
            }),
        }
    }
    (watched, seen)
}
