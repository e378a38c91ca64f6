//! From a data directory to a running member: [`directory`] is locked, [`open`] reads it back, [`threads`] begin. [`first`] begins one that
//! has no data, with the members that [`discovery`] finds; [`alone`] is for one that is to go on without the others. What the threads do to
//! the server around them is in [`outside`] (raft), [`applying`] and [`effects`] (apply), and [`keeping`].

mod alone;
mod applying;
mod directory;
mod discovery;
mod effects;
pub mod first;
mod keeping;
mod open;
mod outside;
mod threads;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_api::etcdserverpb::InternalRaftRequest;
use etcd_api::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use tracing::{info, warn};

pub use self::applying::ApplyJob;
pub use self::directory::data_dir;
pub use self::keeping::keep;
pub use self::open::{check_consistent, conf_state, finish_install, node};
use crate::config::Config;
use crate::disk::Disk;
use crate::disk::real::{DirLock, RealDisk};
use crate::disk::unsynced::Unsynced;
use crate::peer::client::Client;
use crate::raft::driver::Event;
use crate::server::EtcdServer;
use crate::storage::keeper::Request;
use crate::watch::hub::HubEvent;

/// Upstream's: a second and an election.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A running member; dropping the lock last frees the directory.
pub struct Member {
    pub server: Arc<EtcdServer>,
    threads: Vec<JoinHandle<()>>,
    keeper: JoinHandle<()>,
    _lock: DirLock,
}

pub async fn start(config: &Config) -> Result<Member> {
    if config.memory_mlock {
        lock_memory()?;
    }
    let disk: Arc<dyn Disk> = match config.no_fsync {
        false => Arc::new(RealDisk),
        true => {
            warn!(
                "--unsafe-no-fsync: what is acknowledged is not durable; a loss of power loses it, or the whole store"
            );
            Arc::new(Unsynced(RealDisk))
        }
    };
    let lock = directory::prepare(&*disk, config)?;
    for dir in directory::probed(config) {
        directory::probe(&*disk, &dir, config.election)?;
    }
    let client = peer_client(config)?;
    let opened = open::open(&disk, config, &client).await?;
    threads::start(config, opened, lock, client)
}

/// Index, log and what is allocated later, page by page as they are touched; values stay in files, where the page cache is the kernel's.
fn lock_memory() -> Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall};
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).context(
        "--memory-mlock: cannot lock memory; raise the limit (ulimit -l unlimited, LimitMEMLOCK=infinity) or give the process CAP_IPC_LOCK",
    )
}

fn peer_client(config: &Config) -> Result<Client> {
    let tls = config.peer_client_tls.clone();
    let tls = tls
        .map(|tls| tls.load_for(config.allowed_peers.clone()))
        .transpose()
        .context("--peer-cert-file, --peer-key-file and --peer-trusted-ca-file")?;
    Ok(Client::new(tls, DIAL_TIMEOUT + config.election))
}

impl Member {
    /// Tells the cluster who this member is; tried until it succeeds, because that takes a leader.
    pub async fn publish(&self, config: &Config) {
        let attributes = Attributes {
            name: config.name.clone(),
            client_urls: config.advertise_client_urls.clone(),
        };
        let request = InternalRaftRequest {
            cluster_member_attr_set: Some(ClusterMemberAttrSetRequest {
                member_id: self.server.member,
                member_attributes: Some(attributes),
            }),
            ..Default::default()
        };
        while let Err(error) = self.server.propose(request.clone()).await {
            warn!(error = %error, "failed to publish local member to cluster through raft");
        }
        info!("local-member-id" = %format!("{:x}", self.server.member), "published local member to cluster through raft");
        self.server.decide_version(&mut 1).await;
    }

    /// What the last life left dead is reclaimed.
    pub fn reclaim(&self) {
        self.server.keeper.ask(Request::RECLAIM);
    }

    /// Stops everything in the order of the data's way, and leaves the store durable for a fast start.
    pub fn stop(self) {
        self.server.events.push(Event::Stop);
        self.server.hub.send(HubEvent::Stop);
        self.server.keeper.ask(Request::STOP);
        join(self.keeper);
        self.server.apply_jobs.push(ApplyJob::Stop);
        self.threads.into_iter().for_each(join);
        if let Some(traces) = self.server.traces.get() {
            traces.stop();
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        warn!("a thread panicked before the end");
    }
}
