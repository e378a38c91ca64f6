//! kube-apiserver: the front door of the cluster, and the only one that speaks to etcd.
//!
//! A request's way through the modules: `filters` (authentication, impersonation, audit, limits, authorization) -> `endpoints`
//! (verbs, media types) -> `registry` (one generic store, a strategy for each kind, admission) -> `storage` (etcd) and
//! back out of the watch cache. `options` and `server` put it together; `discovery`, `openapi`, `printers` and `proxy` plug
//! into the endpoints; `bootstrap` writes what every cluster has from its first minute.

mod admission;
mod authentication;
mod authorization;
mod bootstrap;
mod clock;
mod discovery;
mod endpoints;
mod filters;
mod openapi;
mod options;
mod printers;
mod proxy;
mod registry;
mod request_info;
mod server;
mod storage;
mod user;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    component_base::run("kube-apiserver", options::flag_set(), |flags, drain| async move {
        server::run(options::Options::new(flags)?, drain).await
    })
}
