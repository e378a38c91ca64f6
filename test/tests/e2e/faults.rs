//! Daemons killed in turn while users write: what was acknowledged stays.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use e2e::cluster::MEMBERS;
use e2e::{Cluster, Daemon, eventually};

use crate::control_plane::{CONFIG_MAPS, list_version};
use crate::nodes::{deploy_web, with_node};

/// Creates config maps until `rounds` of kills are over; returns the names whose creation was acknowledged.
fn write_while_killing(cluster: &mut Cluster, victims: &[Daemon]) -> Result<BTreeSet<String>> {
    let mut acknowledged = BTreeSet::new();
    let mut write = |cluster: &Cluster, victim: &str, n: usize| -> Result<()> {
        let name = format!("c-{victim}-{n}");
        // A request that fails may or may not have been carried out; only success is a promise.
        if cluster
            .kubectl(&["create", "configmap", &name, "--request-timeout=5s"])?
            .code
            == 0
        {
            acknowledged.insert(name);
        }
        Ok(())
    };
    for victim in victims {
        for n in 0..4 {
            write(cluster, victim.name(), n)?;
        }
        cluster.kill(*victim)?;
        write(cluster, victim.name(), 4)?;
        cluster.restart(*victim)?;
        for n in 5..9 {
            write(cluster, victim.name(), n)?;
        }
    }
    Ok(acknowledged)
}

fn check_kept(cluster: &Cluster, acknowledged: &BTreeSet<String>) -> Result<()> {
    // etcd's restart is ready before the API server has its connection back.
    eventually(
        "everything acknowledged is there",
        Duration::from_secs(30),
        || {
            let listed = cluster.kubectl(&["get", "configmaps", "-o", "name"])?.ok()?;
            let there: BTreeSet<&str> = listed
                .lines()
                .filter_map(|l| l.strip_prefix("configmap/"))
                .collect();
            let lost: Vec<&String> = acknowledged
                .iter()
                .filter(|name| !there.contains(name.as_str()))
                .collect();
            Ok((lost.is_empty(), format!("lost {lost:?}")))
        },
    )
}

#[test]
fn the_control_plane_killed_in_turn_loses_nothing_acknowledged() -> Result<()> {
    let mut cluster = Cluster::builder("kill")
        .controller_manager()
        .scheduler()
        .start()?;
    let victims = [
        Daemon::Etcd,
        Daemon::ApiServer,
        Daemon::ControllerManager,
        Daemon::Scheduler,
        Daemon::Etcd,
    ];
    let acknowledged = write_while_killing(&mut cluster, &victims)?;
    assert!(
        acknowledged.len() >= 30,
        "only {} writes succeeded",
        acknowledged.len()
    );
    check_kept(&cluster, &acknowledged)?;
    cluster.finish()
}

#[test]
fn a_cluster_with_a_node_survives_the_death_of_each_daemon() -> Result<()> {
    let Some(mut cluster) = with_node("deaths")? else {
        return Ok(());
    };
    deploy_web(&cluster)?;
    let before = e2e::node::running_tasks(&cluster)?;
    let victims = [
        Daemon::Etcd,
        Daemon::ApiServer,
        Daemon::ControllerManager,
        Daemon::Scheduler,
        Daemon::Kubelet,
        Daemon::Proxy,
    ];
    let acknowledged = write_while_killing(&mut cluster, &victims)?;
    check_kept(&cluster, &acknowledged)?;
    e2e::node::await_node_ready(&mut cluster)?;
    assert_eq!(
        e2e::node::running_tasks(&cluster)?,
        before,
        "containers were restarted"
    );
    cluster
        .kubectl(&["scale", "deployment", "web", "--replicas=4"])?
        .ok()?;
    cluster
        .kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?
        .ok()?;
    cluster.finish()
}

#[test]
fn a_daemon_told_to_end_ends_in_order() -> Result<()> {
    let mut cluster = Cluster::builder("stop")
        .controller_manager()
        .scheduler()
        .start()?;
    for daemon in [
        Daemon::Scheduler,
        Daemon::ControllerManager,
        Daemon::ApiServer,
        Daemon::Etcd,
    ] {
        cluster.stop(daemon)?;
    }
    for daemon in [
        Daemon::Etcd,
        Daemon::ApiServer,
        Daemon::ControllerManager,
        Daemon::Scheduler,
    ] {
        cluster.restart(daemon)?;
    }
    cluster.finish()
}

/// Whoever of the three leads is among those that die; the API server has the others.
#[test]
fn an_api_server_on_three_members_of_etcd_loses_and_repeats_nothing_while_each_dies() -> Result<()> {
    let mut cluster = Cluster::builder("members").three_members().start()?;
    let start = list_version(&cluster)?;
    let acknowledged = write_while_killing(&mut cluster, &MEMBERS)?;
    assert!(acknowledged.len() >= 20, "only {acknowledged:?}");
    check_kept(&cluster, &acknowledged)?;
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={start}&timeoutSeconds=2");
    let events = cluster.kubectl(&["get", "--raw", &path])?.ok()?;
    for name in &acknowledged {
        let named = format!("\"name\":\"{name}\"");
        let told = events.lines().filter(|event| event.contains(&named)).count();
        assert_eq!(told, 1, "events of {name}");
    }
    let hashes = cluster.etcdctl(&["endpoint", "hashkv"])?.ok()?;
    let hash = |line: &str| line.split(", ").nth(1).map(str::to_owned);
    let different: BTreeSet<_> = hashes.lines().map(hash).collect();
    assert_eq!(different.len(), 1, "{hashes}");
    cluster.finish()
}
