//! The pod's containers, through the CRI.
//!
//! One sync: the pod worker hands over the pod and its [`pod_status::PodStatus`] -> [`actions`] decides (pure) -> [`manager`] kills what must go,
//! makes the sandbox ([`config`]), pulls images ([`images`]), starts containers with their environment ([`env`]) and security
//! context ([`security`]), runs hooks ([`lifecycle`]). What was made is recognised later by its labels ([`labels`]).

pub mod actions;
pub mod config;
pub mod env;
pub mod exit_watch;
pub mod gc;
pub mod images;
pub mod labels;
pub mod lifecycle;
pub mod manager;
mod pidfd;
pub mod pod_status;
pub mod query;
pub mod security;
pub mod termination_message;
