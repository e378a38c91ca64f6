//! RangeStream answers what Range answers, in pieces.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{
    CompactionRequest, DefragmentRequest, RangeRequest, RangeResponse, RangeStreamResponse, RequestOp,
    TxnRequest, range_request::SortOrder, request_op,
};
use prost::Message as _;
use tonic::Code;

use crate::harness::{Etcd, PATIENCE, prefix, put, revision_of};

/// What proto's Merge makes of all messages, and how many there were.
fn merged(messages: &[RangeStreamResponse]) -> RangeResponse {
    let mut whole = RangeStreamResponse::default();
    for message in messages {
        whole.merge(&message.encode_to_vec()[..]).unwrap();
    }
    whole.range_response.unwrap()
}

async fn stream(etcd: &Etcd, request: RangeRequest) -> Result<Vec<RangeStreamResponse>, tonic::Status> {
    let mut answers = etcd.kv().await.range_stream(request).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = answers.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

/// Many keys that are so small that all of them would fit into one buffer.
#[tokio::test]
async fn a_range_of_many_tiny_keys_is_whole() {
    const KEYS: usize = 1100;
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    let puts = (0..KEYS).map(|number| RequestOp {
        request: Some(request_op::Request::RequestPut(put(format!("k{number:04}"), "v"))),
    });
    for batch in puts.collect::<Vec<_>>().chunks(100) {
        let request = TxnRequest {
            success: batch.to_vec(),
            ..Default::default()
        };
        kv.txn(request).await.unwrap();
    }
    for keys_only in [false, true] {
        let request = RangeRequest {
            keys_only,
            ..prefix("k")
        };
        assert_eq!(kv.range(request).await.unwrap().into_inner().kvs.len(), KEYS);
    }
}

#[tokio::test]
async fn merged_pieces_are_the_ranges_answer() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    for number in 0..100 {
        kv.put(put(format!("k{number:03}"), vec![number; 20_000]))
            .await
            .unwrap();
    }
    let all = prefix("k");
    for request in [
        all.clone(),
        RangeRequest {
            limit: 30,
            ..all.clone()
        },
        RangeRequest {
            limit: 100,
            ..all.clone()
        },
        RangeRequest {
            keys_only: true,
            ..all.clone()
        },
        RangeRequest {
            count_only: true,
            ..all.clone()
        },
        RangeRequest {
            revision: 50,
            ..all.clone()
        },
        RangeRequest {
            sort_order: SortOrder::Ascend as i32,
            ..all.clone()
        },
        prefix("nothing"),
    ] {
        let messages = stream(&etcd, request.clone()).await.unwrap();
        let range = kv
            .clone()
            .max_decoding_message_size(64 << 20)
            .range(request.clone())
            .await
            .unwrap();
        assert_eq!(merged(&messages), range.into_inner(), "{request:?}");
        let (last, before) = messages.split_last().unwrap();
        assert!(last.range_response.as_ref().unwrap().header.is_some());
        for piece in before {
            let piece = piece.range_response.as_ref().unwrap();
            assert!(piece.header.is_none() && piece.count == 0 && !piece.more);
            assert!(!piece.kvs.is_empty() && piece.encoded_len() < 512 * 1024);
        }
    }
    assert!(stream(&etcd, all.clone()).await.unwrap().len() > 5);
    let sorted = RangeRequest {
        sort_order: SortOrder::Descend as i32,
        ..all.clone()
    };
    let refused = stream(&etcd, sorted).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (
            Code::Unimplemented,
            "RangeStream does not support custom sort orders"
        )
    );
    let future = stream(
        &etcd,
        RangeRequest {
            revision: 1000,
            ..all
        },
    )
    .await
    .unwrap_err();
    assert_eq!(future.code(), Code::OutOfRange);
}

/// The files of the store.
fn segments(etcd: &Etcd) -> BTreeSet<String> {
    let files = std::fs::read_dir(etcd.dir.join("member/store")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".seg")).collect()
}

/// The revision after all keys were written.
async fn write_all(etcd: &Etcd, keys: usize, filler: u8) -> i64 {
    let (mut kv, mut revision) = (etcd.kv().await, 0);
    for number in 0..keys {
        let request = put(format!("k{number:04}"), vec![filler; 20_000]);
        revision = revision_of(&mut kv, request).await;
    }
    revision
}

/// Everything anew; what was there before is compacted, until the oldest file is gone.
async fn replace_all(etcd: &Etcd, keys: usize, filler: u8) {
    let before = segments(etcd);
    let oldest = before.first().unwrap();
    let compaction = CompactionRequest {
        revision: write_all(etcd, keys, filler).await,
        physical: true,
    };
    etcd.kv().await.compact(compaction).await.unwrap();
    let start = Instant::now();
    while segments(etcd).contains(oldest) {
        assert!(start.elapsed() < PATIENCE, "{before:?} {:?}", segments(etcd));
        MaintenanceClient::new(etcd.channel().await)
            .defragment(DefragmentRequest {})
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_reader_that_is_slow_gets_what_was_there_when_it_asked() {
    const KEYS: usize = 1000;
    let etcd = Etcd::start();
    write_all(&etcd, KEYS, 1).await;
    let request = RangeRequest {
        serializable: true,
        ..prefix("k")
    };
    let mut answers = etcd.kv().await.range_stream(request).await.unwrap().into_inner();
    let mut messages = vec![answers.message().await.unwrap().unwrap()];
    for filler in [2, 3] {
        replace_all(&etcd, KEYS, filler).await;
    }
    while let Some(message) = answers.message().await.unwrap() {
        messages.push(message);
    }
    let whole = merged(&messages);
    assert_eq!((whole.count as usize, whole.kvs.len()), (KEYS, KEYS));
    assert!(whole.kvs.iter().all(|kv| kv.value[..] == [1; 20_000]));
}
