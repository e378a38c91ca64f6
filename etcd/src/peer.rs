//! The way to the other members: etcd's rafthttp, so that a member of either kind could be on the other end.
//!
//! A message's way: the raft driver hands it to the [`transport`], which puts it into a bounded queue of its [`remote`] peer and never waits.
//! The peer itself has dialed us for two streams: appends travel on one ([`msgapp`]), everything else on the other, so that no heartbeat
//! stands behind a large append; while there is no stream, a message is posted. On the other side a stream reader or the [`handler`] of the
//! peer listener decodes it ([`wire`]) and gives it to the driver. A store that travels to a member that lags goes by [`snapshot`].
//!
//! [`lease`] and [`corrupt`] are what members ask each other beside raft. [`client`] is the HTTP client for all of it, [`headers`] what both sides check before anything else, [`join`] how a new member learns who is
//! there. [`fake`] is a network for tests, in one thread and under a seed.

pub mod client;
pub mod corrupt;
#[cfg(test)]
pub mod fake;
pub mod handler;
pub mod headers;
pub mod join;
pub mod lease;
mod metrics;
pub mod msgapp;
pub mod reader;
pub mod remote;
pub mod snapshot;
mod stream;
pub mod transport;
pub mod wire;
