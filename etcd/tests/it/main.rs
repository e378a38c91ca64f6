//! Real processes: our etcd, Debian's etcdctl, real clients over sockets, kill -9, full disks.

mod auth;
mod cluster;
mod concurrency;
mod corrupt_check;
mod corruption;
mod discovery;
mod downgrade;
mod durability;
mod etcdctl;
mod full_disk;
mod gateway;
mod handover;
mod harness;
mod http;
mod permissions;
mod range_stream;
mod robustness;
mod snapshot;
mod start;
mod tls;
mod traffic;
mod v2;
mod watch;
