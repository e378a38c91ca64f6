//! kubelet; the crate's documentation is in `lib.rs`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    component_base::run("kubelet", kubelet::options::flags(), kubelet::app::run)
}
