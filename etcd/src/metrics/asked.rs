//! Families whose values are kept elsewhere and asked for at each scrape.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use component_base::metrics;
use component_base::version::ETCD_VERSION;
use etcd_api::etcdserverpb::AlarmType;

use crate::server::EtcdServer;
use crate::v2;
use crate::watch::{hub, outbox};

struct Family {
    kind: &'static str,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    series: Series,
}

enum Series {
    One(fn(&EtcdServer) -> f64),
    /// Values of the labels, and the value.
    Each(fn(&EtcdServer) -> Vec<(Vec<String>, f64)>),
}

/// A row: the kind, labels where there are several series, the name, the help, and what it is now.
macro_rules! families {
    ($($kind:ident $([$($label:literal),+])? $name:literal $help:literal $value:expr;)*) => {
        &[$(Family {
            kind: stringify!($kind),
            name: $name,
            help: $help,
            labels: &[$($($label),+)?],
            series: families!(@ $([$($label),+])? $value),
        }),*]
    };
    (@ [$($label:literal),+] $value:expr) => { Series::Each($value) };
    (@ $value:expr) => { Series::One($value) };
}

static FAMILIES: &[Family] = families! {
    gauge "etcd_server_has_leader" "Whether or not a leader exists. 1 is existence, 0 is not."
        |server| flag(server.leader() != 0);
    gauge "etcd_server_is_leader" "Whether or not this member is a leader. 1 if is, 0 otherwise."
        |server| flag(server.raft.is_leader.load(Ordering::Relaxed));
    gauge "etcd_server_is_learner" "Whether or not this member is a learner. 1 if is, 0 otherwise."
        |server| flag(server.is_learner());
    counter "etcd_server_leader_changes_seen_total" "The number of leader changes seen."
        |server| number(&server.raft.leader_changes);
    gauge "etcd_server_proposals_committed_total" "The total number of consensus proposals committed."
        |server| number(&server.raft.committed);
    gauge "etcd_server_proposals_applied_total" "The total number of consensus proposals applied."
        |server| number(&server.raft.applied);
    gauge "etcd_server_proposals_pending" "The current number of pending proposals to commit."
        |server| server.state.waits.len() as f64;
    counter "etcd_server_proposals_failed_total" "The total number of failed proposals seen."
        |server| number(&server.raft.proposals_failed);
    counter "etcd_server_heartbeat_send_failures_total"
        "The total number of leader heartbeat send failures (likely overloaded from slow disk)."
        |server| number(&server.raft.heartbeat_failures);
    gauge "etcd_server_quota_backend_bytes" "Current backend storage quota size in bytes."
        |server| server.limits.quota_bytes as f64;
    gauge ["server_version"] "etcd_server_version"
        "Which version is running. 1 for 'server_version' label with current version."
        |_| vec![(vec![ETCD_VERSION.to_owned()], 1.0)];
    gauge ["server_id"] "etcd_server_id"
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID."
        |server| vec![(vec![hex(server.member)], 1.0)];
    gauge ["cluster_version"] "etcd_cluster_version"
        "Which version is running. 1 for 'cluster_version' label with current cluster version"
        cluster_version;
    gauge ["Local", "Remote"] "etcd_network_known_peers"
        "The current number of known peers."
        known_peers;
    gauge ["server_id", "alarm_type"] "etcd_debugging_server_alarms"
        "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm"
        alarms;

    gauge "etcd_mvcc_db_total_size_in_bytes"
        "Total size of the underlying database physically allocated in bytes."
        |server| server.store().storage.total_bytes() as f64;
    gauge "etcd_mvcc_db_total_size_in_use_in_bytes"
        "Total size of the underlying database logically in use in bytes."
        |server| server.store().storage.live_bytes() as f64;
    gauge "etcd_debugging_mvcc_keys_total" "Total number of keys."
        |server| server.store().live_keys() as f64;
    gauge "etcd_debugging_mvcc_current_revision" "The current revision of store."
        |server| server.store().current() as f64;
    gauge "etcd_debugging_mvcc_compact_revision" "The revision of the last compaction in store."
        |server| server.store().compacted() as f64;
    gauge "etcd_debugging_mvcc_watcher_total" "Total number of watchers."
        |server| server.hub.watchers() as f64;
    gauge "etcd_debugging_mvcc_slow_watcher_total" "Total number of unsynced slow watchers."
        |_| hub::slow_watchers() as f64;
    gauge "etcd_debugging_mvcc_pending_events_total" "Total number of pending events to be sent."
        |_| outbox::pending_events() as f64;
    gauge "etcd_debugging_auth_revision" "The current revision of auth store."
        |server| server.state.auth.revision() as f64;
    gauge "etcd_debugging_lease_total" "Leases that exist."
        |server| server.state.lessor.lock().len() as f64;

    counter "etcd_debugging_store_expires_total" "Total number of expired keys."
        |server| server.state.v2.read().counts.expired() as f64;
    counter "etcd_debugging_store_watch_requests_total"
        "Total number of incoming watch requests (new or reestablished)."
        |server| server.state.v2.read().watch_requests() as f64;
    gauge "etcd_debugging_store_watchers" "Count of currently active watchers."
        |server| server.state.v2.read().watchers() as f64;
    counter ["action"] "etcd_debugging_store_reads_total"
        "Total number of reads action by (get/getRecursive), local to this member."
        |server| v2_actions(server, v2::Counts::reads, false);
    counter ["action"] "etcd_debugging_store_reads_failed_total"
        "Failed read actions by (get/getRecursive), local to this member."
        |server| v2_actions(server, v2::Counts::reads, true);
    counter ["action"] "etcd_debugging_store_writes_total"
        "Total number of writes (e.g. set/compareAndDelete) seen by this member."
        |server| v2_actions(server, v2::Counts::writes, false);
    counter ["action"] "etcd_debugging_store_writes_failed_total"
        "Failed write actions (e.g. set/compareAndDelete), seen by this member."
        |server| v2_actions(server, v2::Counts::writes, true);

    gauge "os_fd_used" "The number of used file descriptors."
        |_| metrics::open_fds().unwrap_or_default() as f64;
    gauge "os_fd_limit" "The file descriptor limit."
        |_| metrics::max_fds().unwrap_or_default() as f64;
};

pub fn register(server: &Arc<EtcdServer>) {
    for family in FAMILIES {
        let server = server.clone();
        metrics::collector(family.name, move |out| family.write(&server, out));
    }
}

impl Family {
    fn write(&self, server: &EtcdServer, out: &mut String) {
        let series = match self.series {
            Series::One(value) => vec![(Vec::new(), value(server))],
            Series::Each(values) => values(server),
        };
        if series.is_empty() {
            return;
        }
        metrics::write_head(out, self.name, self.help, self.kind);
        for (values, value) in series {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            metrics::write_sample(out, self.name, self.labels, &values, value);
        }
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn number(value: &AtomicU64) -> f64 {
    value.load(Ordering::Relaxed) as f64
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Upgrades and downgrades change it while this member serves.
fn cluster_version(server: &EtcdServer) -> Vec<(Vec<String>, f64)> {
    let version = server.state.membership.read().version.clone();
    let minor = version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor.map(|minor| (vec![minor], 1.0)).into_iter().collect()
}

/// This member is one of them, as in etcd; those that were removed are known and none.
fn known_peers(server: &EtcdServer) -> Vec<(Vec<String>, f64)> {
    let membership = server.state.membership.read();
    let members = membership.members.keys().map(|id| (*id, 1.0));
    let removed = membership.removed.iter().map(|id| (*id, 0.0));
    let peer = |(id, value)| (vec![hex(server.member), hex(id)], value);
    members.chain(removed).map(peer).collect()
}

fn alarms(server: &EtcdServer) -> Vec<(Vec<String>, f64)> {
    let alarms = server.state.alarms.read();
    let name = |kind| AlarmType::try_from(kind).map_or("UNKNOWN", |kind| kind.as_str_name());
    let raised = alarms
        .iter()
        .map(|(member, kind)| (vec![hex(*member), name(*kind).to_owned()], 1.0));
    raised.collect()
}

type Actions = fn(&v2::Counts) -> Vec<v2::ActionCount>;

/// Those that were asked for once.
fn v2_actions(server: &EtcdServer, actions: Actions, failed: bool) -> Vec<(Vec<String>, f64)> {
    let actions = actions(&server.state.v2.read().counts);
    let counted = actions.into_iter().map(|action| {
        let count = if failed { action.failed } else { action.all };
        (vec![action.name.to_owned()], count as f64)
    });
    counted.filter(|(_, count)| *count > 0.0).collect()
}
