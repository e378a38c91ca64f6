//! The way to the other members: etcd's rafthttp, so that a member of either kind could be on the other end.
//!
//! A message's way: the raft thread puts it into a bounded queue of the [`stream`] to its [`remote`] peer and writes what waits once in a turn; it
//! never waits for a socket. The peer itself has dialed us for two streams: appends travel on one ([`msgapp`]), everything else on the other, so
//! that no heartbeat stands behind a large append; while there is no stream, a message is posted. On the other side the raft thread reads it
//! ([`incoming`], [`wire`]). All [`streams`] are the raft thread's: who dials ([`dial`]) or is dialed ([`handler`]) agrees on TLS and HTTP elsewhere
//! and hands the [`socket`] over. A store that travels to a member that lags goes by [`snapshot`], which [`transport`] knows the peers for.
//!
//! [`lease`] and [`corrupt`] are what members ask each other beside raft. [`client`] is the HTTP client for all of it, [`headers`] what both sides check before anything else, [`join`] how a new member learns who is
//! there. [`fake`] is a network for tests, in one thread and under a seed.

pub mod client;
pub mod corrupt;
mod dial;
#[cfg(test)]
pub mod fake;
pub mod handler;
pub mod headers;
mod incoming;
pub mod join;
pub mod lease;
mod metrics;
pub mod msgapp;
pub mod reader;
pub mod remote;
pub mod snapshot;
mod socket;
mod stream;
pub mod streams;
pub mod transport;
pub mod wire;
