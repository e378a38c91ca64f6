//! The container runtime interface (CRI v1), client side.
//!
//! A call goes: the kubelet asks one of the four small traits in [`services`] -> [`remote`] puts a deadline on it and sends it
//! over the runtime's unix socket -> the answer, or an [`Error`] that names the call, comes back, and the [`Observer`] has seen
//! both. [`fake`] implements the same traits in memory and ships here so that every test of the kubelet runs without a runtime.
//!
//! [`v1`] is generated once from upstream's `api.proto` and checked in: building needs no protoc.
//!
//! What is not here: any policy. Names, labels, restarts and back-off are the kubelet's.

#[cfg(feature = "fake")]
pub mod fake;
pub mod remote;
pub mod services;

#[allow(clippy::all, rust_2018_idioms, clippy::pedantic)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/runtime_v1.rs");
}

pub use remote::{Observer, RemoteRuntime, RuntimeTimeouts};
pub use services::{
    ContainerEvents, ContainerService, ExecOutput, ImageService, PodSandboxService, Runtime, RuntimeService,
};

/// What went wrong with one call. The name of the call is part of it: a hanging runtime is found by it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct Error {
    pub call: &'static str,
    pub code: tonic::Code,
    pub message: String,
}

impl Error {
    pub fn new(call: &'static str, code: tonic::Code, message: impl Into<String>) -> Self {
        Self {
            call,
            code,
            message: message.into(),
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code == tonic::Code::NotFound
    }

    pub fn is_unimplemented(&self) -> bool {
        self.code == tonic::Code::Unimplemented
    }

    pub fn is_deadline(&self) -> bool {
        self.code == tonic::Code::DeadlineExceeded
    }

    /// The runtime did not answer at all, as opposed to answering with a failure.
    pub fn is_unavailable(&self) -> bool {
        self.code == tonic::Code::Unavailable
    }
}

pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
