//! The node agent: runs the pods that are bound to this node and says how they are.
//!
//! One pod's way through this crate:
//!
//! 1. [`sources`] hear of it, from the API server or from a file, and tell the [`sync_loop`], the one owner of [`pod_workers`].
//! 2. [`admission`] decides whether this node can take it; the pod's state machine says what is to be done now.
//! 3. [`kubelet`] does one such piece of work: [`cgroups`], [`mirror`] pod, [`volumes`] (filled from [`objects`] and [`downward`]),
//!    then [`runtime`] decides and makes sandbox and containers over the CRI, with [`network`] names and [`credentials`].
//! 4. [`pleg`] hears what the runtime made of it, [`probes`] ask the containers themselves.
//! 5. [`status`] computes what the API shows and patches it; for a deleted pod whose everything is gone it says the last word.
//!
//! Beside that path: [`node`] reports the machine, [`eviction`] and [`images_gc`] keep it alive, [`server`] answers `kubectl logs` and `exec`,
//! [`logs`] reads and rotates, [`bootstrap`] gets a first certificate.
//!
//! Invariants: a pod's uid that began to terminate never starts again; of one container there are never two incarnations; a restart of the kubelet
//! restarts nothing; a pod is deleted from the API only when nothing of it is left here.
//!
//! What is not here: CNI and image formats (the runtime's), devices, persistent volumes.

pub mod admission;
pub mod app;
pub mod backoff;
pub mod bootstrap;
pub mod cgroups;
pub mod credentials;
pub mod downward;
pub mod events;
pub mod eviction;
pub mod images_gc;
pub mod kubelet;
pub mod kubelet_config;
pub mod logs;
pub mod metrics;
pub mod mirror;
pub mod network;
pub mod node;
pub mod objects;
pub mod options;
pub mod pleg;
pub mod pod;
pub mod pod_workers;
pub mod probes;
pub mod resources;
pub mod runtime;
pub mod server;
pub mod sources;
pub mod status;
pub mod sync_loop;
pub mod volumes;
