//! etcd's wire messages and gRPC stubs, generated once from the v3.6 protos and checked in, so that the build needs no `protoc`.
//!
//! A client's request reaches a [`etcdserverpb`] service as one of its messages; the server wraps it into an
//! [`etcdserverpb::InternalRaftRequest`], which travels inside a [`raftpb::Entry`], lies in the WAL as a
//! [`walpb::Record`], and comes out as an [`mvccpb::Event`] for watchers.
//!
//! [`etcdserverpb::RangeStreamResponse`] and its call come from the v3.7 protos.
//!
//! `bytes` fields are [`bytes::Bytes`]: decoding a request from a received frame copies no key and no value.
//! In the proto2 packages (`raftpb`, `walpb`, `snappb`) the fields that etcd declares non-nullable are `required`, which
//! encodes them always and defaults them when absent, byte for byte what etcd's own encoder does.

#[rustfmt::skip]
#[path = "generated"]
mod generated {
    pub mod authpb;
    pub mod etcdserverpb;
    pub mod health;
    pub mod leasepb;
    pub mod membershippb;
    pub mod mvccpb;
    pub mod raftpb;
    pub mod snappb;
    pub mod v3electionpb;
    pub mod v3lockpb;
    pub mod walpb;
}

pub use generated::{
    authpb, etcdserverpb, health, leasepb, membershippb, mvccpb, raftpb, snappb, v3electionpb, v3lockpb,
    walpb,
};
