//! The v3 gRPC API: [`table`] lists every method, [`serve`] runs one, [`grpc`] is the protocol, the other modules are one service each.
//!
//! [`caller`] is who a request is from, and the server as that user may use it: every method begins with one.
//!
//! A unary request is read, decoded without a copy, answered, and its answer written as one frame; stored KeyValues go out as the bytes
//! that were stored. Streams are bodies that are polled.

pub mod auth;
pub mod caller;
pub mod cluster;
pub mod concurrency;
pub mod downgrade;
pub mod election;
mod endless;
pub mod grpc;
pub mod health;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod maintenance;
pub mod range_body;
pub mod range_stream;
pub mod serve;
pub mod snapshot;
pub mod status;
mod stream;
pub mod table;
pub mod unfinished;
pub mod watch;
pub mod watcher;
