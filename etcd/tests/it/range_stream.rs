//! RangeStream answers what Range answers, in pieces.

use etcd_api::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse, range_request::SortOrder};
use prost::Message as _;
use tonic::Code;

use crate::harness::{Etcd, prefix, put};

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
