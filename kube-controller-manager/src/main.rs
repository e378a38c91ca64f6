//! kube-controller-manager: one driver, one table of controllers.
//!
//! A change of an object reaches a shared informer ([`informers`]); the handlers of the controllers that care put keys
//! into their queues; the [`driver`] hands a key to the reconciler, which reads the stores, decides, and writes through the
//! API server. Retry, backoff, metrics and panics are the driver's. [`controllers`] is the table; adding a member is a file
//! and a line. Only the leader works ([`app`]); [`server`] answers probes and metrics on 10257.
//!
//! What is not here: any state that the API server does not have, a resync timer, a path around the API server.

mod app;
mod context;
mod controllers;
mod discovery;
mod driver;
mod expectations;
mod informers;
mod meta;
mod options;
mod pod;
mod pod_control;
mod selector;
mod server;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    component_base::run(options::COMPONENT, options::flags(), app::run)
}
