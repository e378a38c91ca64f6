use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::serve::{self, Handler, Limits, Listener, SocketOptions, Threads};
use component_base::tls::{ServerConfigHandle, ServerTls};
use component_base::{sd_notify, version};
use etcd::bootstrap::{self, Member};
use etcd::compactor;
use etcd::config::{self, Config, ListenUrl, Place};
use etcd::descriptors::{self, Connections};
use etcd::http;
use etcd::peer::handler::PeerHandler;
use etcd::server::request_timeout;
use etcd::traces::Traces;
use tracing::{error, info};

/// Between this member's removal and its end: who asked for it may be asking here.
const REMOVED_GRACE: Duration = Duration::from_secs(1);

/// etcd's, for what other members have under way.
const PEER_GRACE: Duration = Duration::from_secs(1);

/// Threads on which clients' connections live.
const CLIENT_THREADS: usize = 2;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    component_base::allocator::give_back_soon();
    component_base::run("etcd", config::flags(), run)
}

async fn run(flags: Flags, drain: Drain) -> Result<()> {
    let config = Config::from_flags(flags)?;
    info!(name = %config.name, "data-dir" = %config.data_dir.display(), "etcd-version" = version::ETCD_VERSION, "starting an etcd server");
    let mut listeners = Listeners::bind(&config)?;
    let member = bootstrap::start(&config).await?;
    etcd::metrics::register(&member.server, &config.features);
    http::add_liveness_check(&member.server);
    // The others must reach this member before anything can be agreed on.
    let mut serving = listeners.serve_peers(&member, &drain);
    let checked = match config.features.initial_corrupt_check {
        true => member.server.initial_corrupt_check().await,
        false => Ok(()),
    };
    if checked.is_err() {
        drain.start();
    } else {
        tasks(&config, &member);
    }
    if checked.is_ok() && published(&config, &member, &drain).await {
        serving.extend(listeners.serve_clients(&config, &member, &drain)?);
        info!("local-member-id" = %format!("{:x}", member.server.member), "ready to serve client requests");
        sd_notify::guard(&member.server.health);
        sd_notify::ready();
        sd_notify::status(&format!("Member {:x} serves clients", member.server.member));
        member.reclaim();
        ended(&member, &drain).await;
    }
    info!(name = %config.name, "closing etcd server");
    member.server.end_streams();
    member.server.hand_over().await;
    member.server.transport.stop();
    for task in serving {
        task.await??;
    }
    tokio::task::spawn_blocking(|| member.stop()).await?;
    info!(name = %config.name, "closed etcd server");
    checked
}

fn tasks(config: &Config, member: &Member) {
    let server = &member.server;
    tokio::spawn(server.clone().expire_leases());
    tokio::spawn(server.clone().watch_space());
    tokio::spawn(server.clone().monitor_leader());
    tokio::spawn(etcd::v2::expire(server.clone()));
    tokio::spawn(server.clone().watch_version());
    if config.initial_election_tick_advance {
        tokio::spawn(server.clone().advance_ticks(config.election_ticks()));
    }
    if server.limits.lease_checkpoints {
        tokio::spawn(server.clone().checkpoint_leases());
    }
    if !config.corrupt_check.is_zero() {
        tokio::spawn(server.clone().watch_corruption(config.corrupt_check));
    }
    if server.limits.compact_hashes {
        tokio::spawn(server.store().clone().hash_compactions());
        tokio::spawn(server.clone().watch_compact_hashes(config.compact_hash_check));
    }
    if let Some(mode) = config.auto_compaction {
        tokio::spawn(compactor::run(server.clone(), mode));
    }
}

/// False when the end came before the cluster knew this member.
async fn published(config: &Config, member: &Member, drain: &Drain) -> bool {
    tokio::select! {
        () = member.publish(config) => true,
        () = ended(member, drain) => false,
    }
}

/// Until it is told to stop, or finds that it is no member any more.
async fn ended(member: &Member, drain: &Drain) {
    let mut removed = member.server.removed.subscribe();
    // What the wait gives is a lock, which nobody else may wait for.
    let removal = async { drop(removed.wait_for(|removed| *removed).await) };
    tokio::select! {
        () = drain.signaled() => {}
        () = removal => {
            error!("local-member-id" = %format!("{:x}", member.server.member), "the member has been permanently removed from the cluster; to bring it back, remove its data directory and add it as a new member");
            // Whoever asked for it wants to hear that it was done.
            tokio::time::sleep(REMOVED_GRACE).await;
            drain.start();
        }
    }
}

/// Every port, bound before the data directory is touched.
struct Listeners {
    client: Vec<(ListenUrl, Listener)>,
    client_http: Vec<(ListenUrl, Listener)>,
    peer: Vec<(ListenUrl, Listener)>,
    metrics: Vec<(ListenUrl, Listener)>,
    connections: Connections,
    client_tls: Option<ServerConfigHandle>,
    peer_tls: Option<ServerConfigHandle>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Listeners> {
        let socket = SocketOptions {
            reuse_port: config.socket_reuse_port,
        };
        let load = |tls: &Option<ServerTls>| tls.clone().map(ServerTls::load).transpose();
        Ok(Listeners {
            client_tls: load(&config.client_tls)?,
            peer_tls: load(&config.peer_tls)?,
            connections: descriptors::share(
                config.listen_client_urls.len()
                    + config.listen_client_http_urls.len()
                    + config.listen_metrics_urls.len(),
                config.listen_peer_urls.len(),
            ),
            client: bind_all(&config.listen_client_urls, socket)?,
            client_http: bind_all(&config.listen_client_http_urls, socket)?,
            peer: bind_all(&config.listen_peer_urls, socket)?,
            metrics: bind_all(&config.listen_metrics_urls, SocketOptions::default())?,
        })
    }

    fn serve_peers(&mut self, member: &Member, drain: &Drain) -> Vec<Serving> {
        let handler = PeerHandler {
            server: member.server.clone(),
            transport: member.server.transport.clone(),
        };
        let urls = std::mem::take(&mut self.peer);
        let limits = Limits {
            max_connections: self.connections.peers,
            connection_grace: PEER_GRACE,
            // Streams go to the raft thread.
            detachable: true,
            ..Limits::default()
        };
        serve_all(
            urls,
            &self.peer_tls,
            &handler.into_handler(),
            "peer",
            &limits,
            drain,
            None,
        )
    }

    fn serve_clients(self, config: &Config, member: &Member, drain: &Drain) -> Result<Vec<Serving>> {
        if let Some(settings) = &config.tracing {
            let traces = Traces::start(settings).context("cannot trace calls")?;
            // Clients are served once.
            member.server.traces.set(traces).ok();
        }
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
            max_connections: self.connections.clients,
            connection_grace: request_timeout(config.election),
            h2_ping: config.keepalive.ping,
            h2_ping_rule: config.keepalive.rule,
            // Clients of etcd 3.4 send one to every plain endpoint that the members list has.
            url_authorities: true,
            ..Limits::default()
        };
        let http_limits = Limits {
            h2_ping_rule: None,
            ..limits.clone()
        };
        let tls = &self.client_tls;
        // The peers are not among them: a heartbeat may not stand behind a range of a thousand keys.
        let threads = Threads::start("etcd-client", CLIENT_THREADS).context("cannot start threads")?;
        let mut serving = serve_all(self.client, tls, &client, "client", &limits, drain, Some(threads));
        serving.extend(serve_all(
            self.client_http,
            tls,
            &client_http,
            "client http",
            &http_limits,
            drain,
            None,
        ));
        serving.extend(serve_all(
            self.metrics,
            tls,
            &plain,
            "metrics",
            &http_limits,
            drain,
            None,
        ));
        Ok(serving)
    }
}

type Serving = tokio::task::JoinHandle<Result<()>>;

fn serve_all(
    urls: Vec<(ListenUrl, Listener)>,
    tls: &Option<ServerConfigHandle>,
    handler: &Handler,
    what: &str,
    limits: &Limits,
    drain: &Drain,
    threads: Option<Arc<Threads>>,
) -> Vec<Serving> {
    let serve_one = |(url, listener): (ListenUrl, Listener)| {
        let tls = if url.tls { tls.clone() } else { None };
        announce(&url, what);
        tokio::spawn(serve::serve_on(
            threads.clone(),
            listener,
            tls,
            Arc::clone(handler),
            limits.clone(),
            drain.clone(),
        ))
    };
    urls.into_iter().map(serve_one).collect()
}

fn bind_all(urls: &[ListenUrl], options: SocketOptions) -> Result<Vec<(ListenUrl, Listener)>> {
    let bind = |url: &ListenUrl| match &url.place {
        Place::Tcp(address) => serve::bind_with(address, options).map(Listener::from),
        Place::Unix(path) => serve::bind_unix(path),
    };
    urls.iter().map(|url| Ok((url.clone(), bind(url)?))).collect()
}

fn announce(url: &ListenUrl, what: &str) {
    match url.tls {
        true => info!(traffic = what, address = %url.text, "serving {what} traffic securely"),
        false => {
            info!(traffic = what, address = %url.text, "serving {what} traffic insecurely; this is strongly discouraged!")
        }
    }
}
