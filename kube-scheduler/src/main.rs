//! kube-scheduler; the crate's documentation is in `lib.rs`.

use std::process::ExitCode;

use kube_scheduler::{options, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    component_base::run("kube-scheduler", options::flags(), run::run)
}
