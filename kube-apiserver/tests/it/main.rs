//! kube-apiserver against a real etcd: `FERROKUBE_ETCD` names the binary, Debian's is the default.

mod server;
mod transcript;
mod watch;
