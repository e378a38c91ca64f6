//! Real processes: our etcd, Debian's etcdctl, real clients over sockets, kill -9, full disks.

mod abuse;
mod auth;
mod cluster;
mod concurrency;
mod corruption;
mod downgrade;
mod durability;
mod etcdctl;
mod faults;
mod full_disk;
mod gateway;
mod harness;
mod http;
mod http2;
mod members;
mod network;
mod permissions;
mod quorum;
mod range_stream;
mod robustness;
mod snapshot;
mod start;
mod tls;
mod traffic;
mod v2;
mod watch;
