//! kube-apiserver.

mod clock;
mod endpoints;
mod options;
mod registry;
mod request_info;
mod server;
mod storage;
mod user;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    component_base::run("kube-apiserver", options::flag_set(), app)
}
async fn app(flags: component_base::flags::Flags, drain: component_base::drain::Drain) -> anyhow::Result<()> {
    use std::sync::Arc;
    let options = options::Options::new(flags)?;
    let health = component_base::health::Health::new();
    let mut storage = server::Storage::new(&options)?;
    storage.start(&health);
    struct NoPrinters;
    impl endpoints::seam::Printers for NoPrinters {
        fn columns(&self, _: &str, _: &str) -> &'static [endpoints::seam::Column] { &[] }
        fn cells(&self, _: &str, _: &str, _: &apimachinery::value::Value, _: i64) -> Vec<apimachinery::value::Value> { vec![] }
    }
    let plugs = endpoints::seam::Plugs { non_resource: vec![], printers: Arc::new(NoPrinters), creaters: vec![], connecters: vec![] };
    let ep = Arc::new(endpoints::Endpoints::new(storage.registry.clone(), plugs, drain.clone(), options.min_watch));
    let routes = component_base::serve::debug_routes("kube-apiserver", &health, serde_json::Value::Null);
    let handler = component_base::serve::handler(move |req| {
        let ep = ep.clone();
        let direct = routes(&req);
        async move {
            if let Some(r) = direct { return r; }
            let info = request_info::RequestInfo::new(req.method(), req.uri()).unwrap();
            let ctx = endpoints::seam::RequestContext::new(Arc::new(user::UserInfo::loopback()), Arc::new(info), "x".into());
            endpoints::seam::Handler::handle(ep, ctx, req).await
        }
    });
    server::listen(&options, handler, drain).await
}
