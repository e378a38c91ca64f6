#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    component_base::run("kube-proxy", kube_proxy::flags(), kube_proxy::run)
}
