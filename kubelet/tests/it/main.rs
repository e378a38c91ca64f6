//! The kubelet as a whole on the runtime in memory: files in, containers out.

mod lives;
mod node;
