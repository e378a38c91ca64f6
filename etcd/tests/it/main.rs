//! Real processes: our etcd, Debian's etcdctl, real clients over sockets, kill -9, full disks.

mod cluster;
mod corruption;
mod durability;
mod etcdctl;
mod full_disk;
mod harness;
mod http;
mod robustness;
mod start;
mod tls;
mod traffic;
mod watch;
