use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::serve::{self, Handler, Limits};
use component_base::tls::{ServerConfigHandle, ServerTls};
use component_base::{sd_notify, version};
use etcd::bootstrap::{self, Member};
use etcd::compactor;
use etcd::config::{self, Config, ListenUrl};
use etcd::http;
use tokio::net::TcpListener;
use tracing::info;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    component_base::run("etcd", config::flags(), run)
}

async fn run(flags: Flags, drain: Drain) -> Result<()> {
    let config = Config::from_flags(flags)?;
    info!(name = %config.name, "data-dir" = %config.data_dir.display(), "etcd-version" = version::ETCD_VERSION, "starting an etcd server");
    let listeners = Listeners::bind(&config)?;
    let member = bootstrap::start(&config)?;
    etcd::metrics::register(&member.server);
    http::add_checks(&member.server);
    tokio::spawn(member.server.clone().expire_leases());
    tokio::spawn(member.server.clone().watch_space());
    tokio::spawn(etcd::v2::expire(member.server.clone()));
    if let Some(mode) = config.auto_compaction {
        tokio::spawn(compactor::run(member.server.clone(), mode));
    }
    member.publish(&config).await?;
    let serving = listeners.serve(&config, &member, &drain)?;
    info!("local-member-id" = %format!("{:x}", member.server.member), "ready to serve client requests");
    sd_notify::guard(&member.server.health);
    sd_notify::ready();
    sd_notify::status(&format!("Member {:x} serves clients", member.server.member));
    bootstrap::reclaim_at_start(&member.server);
    drain.signaled().await;
    info!(name = %config.name, "closing etcd server");
    for task in serving {
        task.await??;
    }
    tokio::task::spawn_blocking(|| member.stop()).await?;
    info!(name = %config.name, "closed etcd server");
    Ok(())
}

/// Every port, bound before the data directory is touched.
struct Listeners {
    client: Vec<(ListenUrl, TcpListener)>,
    client_http: Vec<(ListenUrl, TcpListener)>,
    peer: Vec<(ListenUrl, TcpListener)>,
    metrics: Vec<(ListenUrl, TcpListener)>,
    client_tls: Option<ServerConfigHandle>,
    peer_tls: Option<ServerConfigHandle>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Listeners> {
        let load = |tls: &Option<ServerTls>| tls.clone().map(ServerTls::load).transpose();
        Ok(Listeners {
            client_tls: load(&config.client_tls)?,
            peer_tls: load(&config.peer_tls)?,
            client: bind_all(&config.listen_client_urls)?,
            client_http: bind_all(&config.listen_client_http_urls)?,
            peer: bind_all(&config.listen_peer_urls)?,
            metrics: bind_all(&config.listen_metrics_urls)?,
        })
    }

    fn serve(
        self,
        config: &Config,
        member: &Member,
        drain: &Drain,
    ) -> Result<Vec<tokio::task::JoinHandle<Result<()>>>> {
        let access = Arc::new(http::Access {
            host_whitelist: config.host_whitelist.clone(),
            cors: config.cors.clone(),
            grpc_gateway: config.enable_grpc_gateway,
            v2: config.enable_v2,
        });
        let client: Handler = http::client_handler(member.server.clone(), access.clone());
        let client_http: Handler = http::client_http_handler(member.server.clone(), access);
        let plain: Handler = http::plain_handler(member.server.clone());
        let limits = Limits {
            max_h2_streams: config.max_concurrent_streams,
            ..Limits::default()
        };
        let mut tasks = Vec::new();
        for (urls, tls, handler, what) in [
            (self.client, &self.client_tls, &client, "client"),
            (self.client_http, &self.client_tls, &client_http, "client http"),
            (self.peer, &self.peer_tls, &plain, "peer"),
            (self.metrics, &self.client_tls, &plain, "metrics"),
        ] {
            for (url, listener) in urls {
                let tls = if url.tls { tls.clone() } else { None };
                announce(&url, what);
                tasks.push(tokio::spawn(serve::serve(
                    listener,
                    tls,
                    Arc::clone(handler),
                    limits.clone(),
                    drain.clone(),
                )));
            }
        }
        Ok(tasks)
    }
}

fn bind_all(urls: &[ListenUrl]) -> Result<Vec<(ListenUrl, TcpListener)>> {
    urls.iter()
        .map(|url| Ok((url.clone(), serve::bind(url.address)?)))
        .collect()
}

fn announce(url: &ListenUrl, what: &str) {
    match url.tls {
        true => info!(traffic = what, address = %url.address, "serving {what} traffic securely"),
        false => {
            info!(traffic = what, address = %url.address, "serving {what} traffic insecurely; this is strongly discouraged!")
        }
    }
}
