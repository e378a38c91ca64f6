//! The v3 gRPC API: [`table`] lists every method, [`grpc`] is the protocol, the other modules are one service each.
//!
//! A unary request is read, decoded without a copy, answered, and its answer written as one frame; stored KeyValues go out as the bytes
//! that were stored. Streams are bodies that are polled.

pub mod cluster;
pub mod grpc;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod range_body;
pub mod snapshot;
pub mod status;
pub mod table;
pub mod watch;
