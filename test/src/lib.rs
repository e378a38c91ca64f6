//! Real clusters for tests: the daemons as processes, the real kubectl and etcdctl, real containerd.
//!
//! A test asks [`Cluster::builder`] for what it needs and gets a running [`Cluster`] in a folder of its own:
//! [`binaries`] finds the daemons, [`world`] decides where they run (on free ports of the host, or with root in
//! namespaces of their own), [`cluster`] starts them in order, [`node`] adds containerd, kubelet and kube-proxy,
//! [`command`] runs clients, [`kubectl`] finds the versions there are of the most important one, [`wait`] polls a condition and tells the last state when it gives up.
//!
//! Everything started is killed by its process id when the cluster is dropped, also when the test dies. After a
//! failure the folder with all logs is kept and its path printed.

pub mod binaries;
pub mod cluster;
pub mod command;
pub mod kubectl;
pub mod node;
pub mod process;
pub mod wait;
pub mod world;

pub use cluster::{Builder, Cluster, Daemon};
pub use command::Output;
pub use kubectl::Kubectl;
pub use wait::{eventually, until};

/// Why a test cannot run here, in one line; the test prints it and passes.
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}
