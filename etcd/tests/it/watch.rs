//! Watch guarantees over real streams.

use std::time::Duration;

use etcd_api::etcdserverpb::watch_create_request::FilterType;
use etcd_api::etcdserverpb::watch_request::RequestUnion;
use etcd_api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchRequest, WatchResponse,
};
use etcd_api::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::harness::{Etcd, PATIENCE, prefix, put};

struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Stream {
    async fn open(etcd: &Etcd) -> Stream {
        let (requests, receiver) = mpsc::channel(16);
        let responses = etcd
            .watch()
            .await
            .max_decoding_message_size(64 << 20)
            .watch(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Stream { requests, responses }
    }

    async fn send(&self, union: RequestUnion) {
        self.requests
            .send(WatchRequest {
                request_union: Some(union),
            })
            .await
            .unwrap();
    }

    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.send(RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    async fn next(&mut self) -> WatchResponse {
        tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("no response came")
            .unwrap()
            .expect("the stream ended")
    }

    /// Keys, in the order in which they came, until there are `count`.
    async fn keys(&mut self, count: usize) -> Vec<String> {
        let mut keys = Vec::new();
        while keys.len() < count {
            keys.extend(
                self.next()
                    .await
                    .events
                    .into_iter()
                    .map(|event| String::from_utf8(event.kv.unwrap().key.to_vec()).unwrap()),
            );
        }
        keys
    }
}

fn all() -> WatchCreateRequest {
    let range = prefix("w/");
    WatchCreateRequest {
        key: range.key,
        range_end: range.range_end,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_then_present_without_loss_repetition_or_reordering() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    for number in 0..500 {
        kv.put(put(format!("w/{number}"), vec![1; 300])).await.unwrap();
    }
    let writer = tokio::spawn(async move {
        for number in 500..2000 {
            kv.put(put(format!("w/{number}"), vec![1; 300])).await.unwrap();
        }
    });
    let mut readers = Vec::new();
    for start_revision in [2, 100, 400] {
        let mut stream = Stream::open(&etcd).await;
        readers.push(tokio::spawn(async move {
            stream
                .create(WatchCreateRequest {
                    start_revision,
                    ..all()
                })
                .await;
            let first = start_revision as usize - 2;
            let expected: Vec<String> = (first..2000).map(|number| format!("w/{number}")).collect();
            assert_eq!(stream.keys(expected.len()).await, expected);
        }));
    }
    for reader in readers {
        reader.await.unwrap();
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn events_carry_previous_values_and_respect_filters() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    let mut stream = Stream::open(&etcd).await;
    let with_prev = stream
        .create(WatchCreateRequest {
            prev_kv: true,
            ..all()
        })
        .await;
    assert!(with_prev.created && with_prev.watch_id == 0);
    let puts_only = stream
        .create(WatchCreateRequest {
            filters: vec![FilterType::Nodelete as i32],
            ..all()
        })
        .await;
    assert_eq!(puts_only.watch_id, 1);
    kv.put(put("w/a", "1")).await.unwrap();
    kv.put(put("w/a", "2")).await.unwrap();
    kv.delete_range(DeleteRangeRequest {
        key: "w/a".into(),
        ..Default::default()
    })
    .await
    .unwrap();
    let mut seen = [Vec::new(), Vec::new()];
    while seen[0].len() < 3 || seen[1].len() < 2 {
        let response = stream.next().await;
        seen[response.watch_id as usize].extend(response.events);
    }
    let prev: Vec<Option<&[u8]>> = seen[0]
        .iter()
        .map(|event| event.prev_kv.as_ref().map(|kv| &kv.value[..]))
        .collect();
    assert_eq!(prev, [None, Some(&b"1"[..]), Some(b"2")]);
    assert_eq!(seen[0][2].r#type(), EventType::Delete);
    assert_eq!(seen[0][2].kv.as_ref().unwrap().mod_revision, 4);
    assert!(seen[1].iter().all(|event| event.r#type() == EventType::Put));
}

#[tokio::test]
async fn progress_comes_after_all_events_before_it() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    let mut stream = Stream::open(&etcd).await;
    stream.create(all()).await;
    for number in 0..50 {
        kv.put(put(format!("w/{number}"), "v")).await.unwrap();
    }
    stream
        .send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
        .await;
    let mut events = 0;
    loop {
        let response = stream.next().await;
        events += response.events.len();
        if response.watch_id == -1 {
            assert_eq!((events, response.header.unwrap().revision), (50, 51));
            return;
        }
    }
}

#[tokio::test]
async fn progress_is_notified_to_those_who_asked_and_hear_nothing() {
    let etcd = Etcd::start_with(&["--watch-progress-notify-interval=200ms"]);
    let mut stream = Stream::open(&etcd).await;
    stream
        .create(WatchCreateRequest {
            progress_notify: true,
            ..all()
        })
        .await;
    let response = stream.next().await;
    assert!(response.events.is_empty() && !response.created && !response.canceled);
    assert_eq!(response.header.unwrap().revision, 1);
}

#[tokio::test]
async fn cancellations_say_why() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    for value in ["1", "2", "3"] {
        kv.put(put("w/a", value)).await.unwrap();
    }
    kv.compact(CompactionRequest {
        revision: 3,
        physical: true,
    })
    .await
    .unwrap();
    let mut stream = Stream::open(&etcd).await;
    assert!(
        stream
            .create(WatchCreateRequest {
                start_revision: 2,
                ..all()
            })
            .await
            .created
    );
    let compacted = stream.next().await;
    assert_eq!((compacted.canceled, compacted.compact_revision), (true, 3));
    stream
        .create(WatchCreateRequest {
            watch_id: 7,
            start_revision: 3,
            ..all()
        })
        .await;
    assert_eq!(
        stream.next().await.events.len(),
        2,
        "the compacted revision itself is still there"
    );
    let duplicate = stream.create(WatchCreateRequest { watch_id: 7, ..all() }).await;
    assert_eq!((duplicate.watch_id, duplicate.canceled), (-1, true));
    stream
        .send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 7 }))
        .await;
    let canceled = stream.next().await;
    assert_eq!(
        (canceled.watch_id, canceled.canceled, canceled.compact_revision),
        (7, true, 0)
    );
}

#[tokio::test]
async fn a_watch_from_the_future_sees_nothing_older() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    let mut stream = Stream::open(&etcd).await;
    stream
        .create(WatchCreateRequest {
            start_revision: 5,
            ..all()
        })
        .await;
    for number in 2..8 {
        kv.put(put(format!("w/{number}"), "v")).await.unwrap();
    }
    assert_eq!(stream.keys(3).await, ["w/5", "w/6", "w/7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_delays_nobody_and_loses_nothing() {
    let etcd = Etcd::start();
    let mut slow = Stream::open(&etcd).await;
    slow.create(all()).await;
    let mut fast = Stream::open(&etcd).await;
    fast.create(all()).await;
    let mut kv = etcd.kv().await;
    // Well beyond what outbox and flow control hold.
    let writer = tokio::spawn(async move {
        for number in 0..1500 {
            kv.put(put(format!("w/{number:05}"), vec![2; 10_000]))
                .await
                .unwrap();
        }
    });
    let expected: Vec<String> = (0..1500).map(|number| format!("w/{number:05}")).collect();
    assert_eq!(fast.keys(1500).await, expected);
    writer.await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(slow.keys(1500).await, expected);
}

#[tokio::test]
async fn a_large_response_comes_in_fragments_when_asked() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    for number in 0..40 {
        kv.put(put(format!("w/{number:02}"), vec![3; 100_000]))
            .await
            .unwrap();
    }
    let mut stream = Stream::open(&etcd).await;
    stream
        .create(WatchCreateRequest {
            prev_kv: true,
            fragment: true,
            ..all()
        })
        .await;
    let range = prefix("w/");
    kv.delete_range(DeleteRangeRequest {
        key: range.key,
        range_end: range.range_end,
        prev_kv: false,
    })
    .await
    .unwrap();
    let (mut events, mut fragments) = (0, 0);
    loop {
        let response = stream.next().await;
        events += response.events.len();
        if !response.fragment {
            break;
        }
        fragments += 1;
    }
    assert_eq!(events, 40);
    assert!(fragments >= 3, "{fragments}");
}

#[tokio::test]
async fn what_happened_while_nobody_watched_is_seen_by_who_comes_back() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    let mut stream = Stream::open(&etcd).await;
    stream.create(WatchCreateRequest { watch_id: 5, ..all() }).await;
    kv.put(put("w/2", "v")).await.unwrap();
    assert_eq!(stream.keys(1).await, ["w/2"]);
    stream
        .send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 5 }))
        .await;
    assert!(stream.next().await.canceled);
    for number in 3..6 {
        kv.put(put(format!("w/{number}"), "v")).await.unwrap();
    }
    stream
        .create(WatchCreateRequest {
            start_revision: 4,
            ..all()
        })
        .await;
    assert_eq!(stream.keys(2).await, ["w/4", "w/5"]);
    stream
        .create(WatchCreateRequest {
            start_revision: 2,
            watch_id: 9,
            ..all()
        })
        .await;
    assert_eq!(stream.keys(4).await, ["w/2", "w/3", "w/4", "w/5"]);
}
