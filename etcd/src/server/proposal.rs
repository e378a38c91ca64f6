//! A request on its way to the log.

use etcd_api::etcdserverpb::{InternalRaftRequest, RequestHeader};
use prost::Message as _;

/// The number of `InternalRaftRequest.header`.
const HEADER_TAG: u32 = 100;
/// What a header takes that names nobody.
const HEADER_BYTES: usize = 24;

/// Written out at once: the struct takes one and a half kilobytes, of which each future that waits for the answer would keep a copy.
#[derive(Clone)]
pub struct Proposal(Vec<u8>);

impl From<InternalRaftRequest> for Proposal {
    fn from(request: InternalRaftRequest) -> Self {
        let mut bytes = Vec::with_capacity(request.encoded_len() + HEADER_BYTES);
        request.encode_raw(&mut bytes);
        Proposal(bytes)
    }
}

impl Proposal {
    /// The entry's bytes, once it is known who proposes.
    pub fn signed(self, header: &RequestHeader) -> Vec<u8> {
        let mut bytes = self.0;
        prost::encoding::message::encode(HEADER_TAG, header, &mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use etcd_api::etcdserverpb::{AlarmRequest, PutRequest};

    use super::*;

    #[test]
    fn the_header_joins_what_was_written() {
        let header = RequestHeader {
            id: u64::MAX,
            username: "alice".to_owned(),
            auth_revision: 7,
        };
        for mut request in [
            InternalRaftRequest {
                put: Some(PutRequest {
                    key: b"k".to_vec().into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            InternalRaftRequest {
                alarm: Some(AlarmRequest::default()),
                ..Default::default()
            },
        ] {
            let bytes = Proposal::from(request.clone()).signed(&header);
            request.header = Some(header.clone());
            assert_eq!(InternalRaftRequest::decode(&bytes[..]).unwrap(), request);
        }
    }
}
