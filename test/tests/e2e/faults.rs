//! Daemons killed in turn while users write: what was acknowledged stays.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use e2e::{Cluster, Daemon, eventually};

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
