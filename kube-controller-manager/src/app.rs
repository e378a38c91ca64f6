//! From flags to a working leader.

use crate::context::Context;
use crate::controllers::{self, Controller};
use crate::options::Options;
use crate::server;
use anyhow::{Context as _, Result};
use client::leaderelection::{self, Fence, LeaderToken};
use client::{Client, RestConfig};
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::health::Health;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::task::JoinSet;

pub async fn run(flags: Flags, drain: Drain) -> Result<()> {
    let options = Options::from_flags(&flags)?;
    controllers::check_names(&options.controllers)?;
    let config = options.rest_config()?;
    let anonymous = options
        .own_identities
        .then(|| Client::new(config.anonymous(), &user_agent()))
        .transpose()
        .context("--kubeconfig")?;
    let client = Client::new(config, &user_agent()).context("--kubeconfig")?;
    let health = Health::new();
    server::start(&options, &flags, health.clone(), &client, drain.clone())?;
    component_base::sd_notify::ready();
    let fence = Fence::default();
    let anonymous = anonymous.map(|a| a.fenced(fence.clone()));
    let manager = Arc::new(Manager {
        client: client.fenced(fence.clone()),
        anonymous,
        options,
        running: Mutex::default(),
    });
    manager.run(client, fence, drain).await
}

fn user_agent() -> String {
    format!(
        "kube-controller-manager/{} (linux/{})",
        component_base::version::GIT_VERSION,
        std::env::consts::ARCH
    )
}

struct Manager {
    client: Client,
    anonymous: Option<Client>,
    options: Options,
    /// Built at the first term and kept: a leader that lost its lease returns with warm caches and the keys that changed.
    running: Mutex<Option<Arc<Vec<Box<dyn Controller>>>>>,
}

impl Manager {
    async fn run(self: Arc<Self>, election_client: Client, fence: Fence, drain: Drain) -> Result<()> {
        let Some(election) = self.options.leader_election.clone() else {
            tokio::select! {
                () = self.lead() => {}
                () = drain.signaled() => {}
            }
            return Ok(());
        };
        let lead = |token: LeaderToken| {
            fence.arm(token);
            let manager = self.clone();
            async move { manager.lead().await }
        };
        leaderelection::run(election_client, election, drain, lead)
            .await
            .context("leader election")
    }

    /// Runs all controllers until dropped.
    async fn lead(&self) {
        let controllers = self.controllers().await;
        let mut tasks = JoinSet::new();
        for index in 0..controllers.len() {
            let controllers = controllers.clone();
            tasks.spawn(async move { controllers[index].run().await });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "A controller's driver failed");
            }
        }
        // Controllers run until they are dropped; without any there is still a lease to hold.
        std::future::pending::<()>().await;
    }

    async fn controllers(&self) -> Arc<Vec<Box<dyn Controller>>> {
        if let Some(running) = self.running.lock().clone() {
            return running;
        }
        let context = Context::new(self.client.clone(), self.anonymous.clone(), self.options.clone());
        let built = Arc::new(controllers::build(&context));
        *self.running.lock() = Some(built.clone());
        built
    }
}

impl Options {
    fn rest_config(&self) -> Result<RestConfig> {
        let mut config = match (&self.kubeconfig, &self.master) {
            (Some(path), _) => client::kubeconfig::load(path)?,
            (None, Some(master)) => {
                RestConfig::plain(master).map_err(|e| anyhow::anyhow!("--master: {e}"))?
            }
            (None, None) => {
                client::kubeconfig::in_cluster().context("neither --kubeconfig nor --master was given")?
            }
        };
        if let (Some(_), Some(master)) = (&self.kubeconfig, &self.master) {
            config.server =
                client::kubeconfig::Server::parse(master).map_err(|e| anyhow::anyhow!("--master: {e}"))?;
        }
        Ok(config)
    }
}
