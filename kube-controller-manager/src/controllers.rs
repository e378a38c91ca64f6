//! The table of controllers. A member is a file and a line.

pub mod cluster_role_aggregation;
pub mod controller_revision;
pub mod cron_job;
pub mod csr;
pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod garbage_collector;
pub mod job;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_events;
pub mod pod_gc;
pub mod replica_set;
pub mod root_ca;
pub mod service_account;
pub mod stateful_set;
pub mod taint_eviction;
pub mod ttl_after_finished;

use crate::context::Context;
use crate::driver::BoxFuture;

/// Something that works until it is dropped, and can be started again.
pub trait Controller: Send + Sync {
    fn run(&self) -> BoxFuture<'_, ()>;
}

struct Entry {
    /// Upstream's name, as `--controllers` takes it.
    name: &'static str,
    /// The name it had before upstream renamed them all.
    alias: &'static str,
    build: fn(&Context) -> Option<Box<dyn Controller>>,
}

/// In the order in which they are built. `None` from a constructor: its flags leave it nothing to do.
const TABLE: &[Entry] = &[
    Entry {
        name: "namespace-controller",
        alias: "namespace",
        build: namespace::build,
    },
    Entry {
        name: "serviceaccount-controller",
        alias: "serviceaccount",
        build: service_account::build,
    },
    Entry {
        name: "root-ca-certificate-publisher-controller",
        alias: "root-ca-cert-publisher",
        build: root_ca::build,
    },
    Entry {
        name: "node-ipam-controller",
        alias: "nodeipam",
        build: node_ipam::build,
    },
    Entry {
        name: "node-lifecycle-controller",
        alias: "nodelifecycle",
        build: node_lifecycle::build,
    },
    Entry {
        name: "taint-eviction-controller",
        alias: "taint-eviction-controller",
        build: taint_eviction::build,
    },
    Entry {
        name: "daemonset-controller",
        alias: "daemonset",
        build: daemon_set::build,
    },
    Entry {
        name: "deployment-controller",
        alias: "deployment",
        build: deployment::build,
    },
    Entry {
        name: "replicaset-controller",
        alias: "replicaset",
        build: replica_set::build,
    },
    Entry {
        name: "replicationcontroller-controller",
        alias: "replicationcontroller",
        build: replica_set::build_replication_controller,
    },
    Entry {
        name: "statefulset-controller",
        alias: "statefulset",
        build: stateful_set::build,
    },
    Entry {
        name: "job-controller",
        alias: "job",
        build: job::build,
    },
    Entry {
        name: "endpointslice-controller",
        alias: "endpointslice",
        build: endpoint_slice::build,
    },
    Entry {
        name: "endpoints-controller",
        alias: "endpoint",
        build: endpoints::build,
    },
    Entry {
        name: "clusterrole-aggregation-controller",
        alias: "clusterrole-aggregation",
        build: cluster_role_aggregation::build,
    },
    Entry {
        name: "cronjob-controller",
        alias: "cronjob",
        build: cron_job::build,
    },
    Entry {
        name: "ttl-after-finished-controller",
        alias: "ttl-after-finished",
        build: ttl_after_finished::build,
    },
    Entry {
        name: "certificatesigningrequest-signing-controller",
        alias: "csrsigning",
        build: csr::build_signer,
    },
    Entry {
        name: "certificatesigningrequest-approving-controller",
        alias: "csrapproving",
        build: csr::build_approver,
    },
    Entry {
        name: "certificatesigningrequest-cleaner-controller",
        alias: "csrcleaner",
        build: csr::cleaner::build,
    },
    Entry {
        name: "garbage-collector-controller",
        alias: "garbagecollector",
        build: garbage_collector::build,
    },
    Entry {
        name: "pod-garbage-collector-controller",
        alias: "podgc",
        build: pod_gc::build,
    },
];

/// Upstream's controllers that are not in the table: their names are good, and they do nothing.
const ABSENT: &[(&str, &str)] = &[
    ("bootstrap-signer-controller", "bootstrapsigner"),
    ("token-cleaner-controller", "tokencleaner"),
    ("cloud-node-lifecycle-controller", "cloud-node-lifecycle"),
    (
        "device-taint-eviction-controller",
        "device-taint-eviction-controller",
    ),
    ("disruption-controller", "disruption"),
    ("endpointslice-mirroring-controller", "endpointslicemirroring"),
    ("ephemeral-volume-controller", "ephemeral-volume"),
    ("horizontal-pod-autoscaler-controller", "horizontalpodautoscaling"),
    (
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    ),
    (
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
    ),
    ("node-route-controller", "route"),
    ("persistentvolume-attach-detach-controller", "attachdetach"),
    ("persistentvolume-binder-controller", "persistentvolume-binder"),
    (
        "persistentvolume-expander-controller",
        "persistentvolume-expander",
    ),
    ("persistentvolume-protection-controller", "pv-protection"),
    ("persistentvolumeclaim-protection-controller", "pvc-protection"),
    (
        "podcertificaterequest-cleaner-controller",
        "podcertificaterequest-cleaner-controller",
    ),
    ("resource-claim-controller", "resource-claim-controller"),
    ("resourcequota-controller", "resourcequota"),
    ("selinux-warning-controller", "selinux-warning-controller"),
    ("service-cidr-controller", "service-cidr-controller"),
    ("service-lb-controller", "service"),
    ("serviceaccount-token-controller", "serviceaccount-token"),
    (
        "storage-version-migrator-controller",
        "storage-version-migrator-controller",
    ),
    (
        "storageversion-garbage-collector-controller",
        "storage-version-gc",
    ),
    ("ttl-controller", "ttl"),
    (
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
    ),
    (
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
    ),
];

/// Refuses a name in `--controllers` that is none of upstream's.
pub fn check_names(wanted: &[String]) -> anyhow::Result<()> {
    let known = || {
        TABLE
            .iter()
            .map(|e| (e.name, e.alias))
            .chain(ABSENT.iter().copied())
    };
    for wanted in wanted {
        let name = wanted.strip_prefix('-').unwrap_or(wanted);
        if name != "*" && !known().any(|(full, alias)| name == full || name == alias) {
            let list: Vec<_> = TABLE.iter().map(|e| e.name).collect();
            anyhow::bail!(
                "--controllers: {name:?} is not in the list of known controllers ({})",
                list.join(", ")
            );
        }
    }
    Ok(())
}

pub fn build(context: &Context) -> Vec<Box<dyn Controller>> {
    let wanted = TABLE.iter().filter(|entry| {
        let on = is_enabled(entry.name, entry.alias, &context.options.controllers);
        if !on {
            tracing::info!(controller = entry.name, "Controller is disabled");
        }
        on
    });
    wanted.filter_map(|entry| (entry.build)(context)).collect()
}

/// An explicit name beats the star, and the first mention counts.
fn is_enabled(name: &str, alias: &str, wanted: &[String]) -> bool {
    let mentions = |text: &str| text == name || text == alias;
    for wanted in wanted {
        if mentions(wanted) {
            return true;
        }
        if wanted.strip_prefix('-').is_some_and(mentions) {
            return false;
        }
    }
    wanted.iter().any(|w| w == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        list.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn controllers_are_chosen_by_name_alias_star_and_minus() {
        assert!(is_enabled(
            "namespace-controller",
            "namespace",
            &names("*,bootstrapsigner")
        ));
        assert!(!is_enabled(
            "namespace-controller",
            "namespace",
            &names("*,-namespace")
        ));
        assert!(is_enabled(
            "namespace-controller",
            "namespace",
            &names("namespace-controller")
        ));
        assert!(!is_enabled(
            "namespace-controller",
            "namespace",
            &names("deployment")
        ));
    }

    #[test]
    fn unknown_names_are_refused_and_old_ones_are_not() {
        assert!(check_names(&names("*,bootstrapsigner,tokencleaner,-csrsigning")).is_ok());
        assert!(
            check_names(&names("nonsense"))
                .unwrap_err()
                .to_string()
                .contains("nonsense")
        );
    }
}
