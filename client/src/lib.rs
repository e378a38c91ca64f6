//! How a component talks to kube-apiserver.
//!
//! One object's way in: [`kubeconfig`] tells where the server is and who we are; [`transport`] keeps one HTTP/2
//! connection to it; [`Client`] sends a request with identity, deadline and metrics; [`Api`] gives it types and
//! [`Error`] its failures. A controller rarely asks: an [`informer`] lists its kind once, decodes the frames of a
//! [`watch`] and keeps a [`informer::Store`]; its handlers put keys into a [`workqueue`], whose worker reads the
//! store, decides, and writes back through an [`Api`]. [`leaderelection`] says who may write, [`events`] tells the
//! user what was done.
//!
//! Objects are k8s-openapi structs and JSON on the wire. What is not here: a resync timer, a client-side rate limit,
//! any cache of what was written.

pub mod api;
pub mod client;
pub mod error;
pub mod events;
pub mod fake;
pub mod informer;
pub mod kubeconfig;
pub mod leaderelection;
mod metrics;
pub mod object;
pub mod options;
mod service_account;
pub mod transport;
pub mod watch;
pub mod workqueue;

pub use api::{Api, List, ResourceType};
pub use client::Client;
pub use error::Error;
pub use kubeconfig::RestConfig;
pub use object::{Object, PartialObjectMetadata, object_key, split_key};
pub use options::{DeleteOptions, ListOptions, Patch, Preconditions};
pub use watch::{WatchEvent, WatchStream};

/// `base` stretched by up to `factor` of itself, so that many waiters do not return together.
pub fn jitter(base: std::time::Duration, factor: f64) -> std::time::Duration {
    base.mul_f64(1.0 + rand::random::<f64>() * factor)
}
