//! `etcd_server_apply_duration_seconds` by the kind of entry, and `etcd_server_range_duration_seconds`.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use component_base::metrics::{self, Histogram, HistogramValue, exponential_buckets};
use etcd_api::etcdserverpb::InternalRaftRequest;

static APPLY: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "etcd_server_apply_duration_seconds",
        "The latency distributions of v2 apply called by backend.",
        &["version", "op", "success"],
        &exponential_buckets(0.0001, 2.0, 20),
    )
});
static RANGE: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "etcd_server_range_duration_seconds",
        "The latency distributions of txn.Range",
        &["success"],
        &exponential_buckets(0.0001, 2.0, 20),
    )
});

/// A series that appears when it is used first, as etcd's do.
type Lazy = OnceLock<Arc<HistogramValue>>;

struct Kind {
    version: &'static str,
    op: &'static str,
    is: fn(&InternalRaftRequest) -> bool,
    /// Failures, then successes.
    series: [Lazy; 2],
}

impl Kind {
    const fn of(version: &'static str, op: &'static str, is: fn(&InternalRaftRequest) -> bool) -> Kind {
        Kind {
            version,
            op,
            is,
            series: [const { Lazy::new() }; 2],
        }
    }
}

/// A row: etcd's name of the kind, and the field that says it; the methods of the v2 API.
macro_rules! kinds {
    ($($op:literal $field:ident;)* v2 { $($method:literal)* }) => {
        [$(Kind::of("v3", $op, |request| request.$field.is_some()),)*
         $(Kind::of("v2", $method, |request| request.v2.as_ref().is_some_and(|v2| v2.method == $method)),)*]
    };
}

/// The frequent ones first.
static KINDS: [Kind; 34] = kinds! {
    "Put" put;
    "Txn" txn;
    "DeleteRange" delete_range;
    "LeaseGrant" lease_grant;
    "LeaseRevoke" lease_revoke;
    "LeaseCheckpoint" lease_checkpoint;
    "Compaction" compaction;
    "Range" range;
    "Alarm" alarm;
    "Authenticate" authenticate;
    "AuthEnable" auth_enable;
    "AuthDisable" auth_disable;
    "AuthStatus" auth_status;
    "AuthUserAdd" auth_user_add;
    "AuthUserDelete" auth_user_delete;
    "AuthUserGet" auth_user_get;
    "AuthUserChangePassword" auth_user_change_password;
    "AuthUserGrantRole" auth_user_grant_role;
    "AuthUserRevokeRole" auth_user_revoke_role;
    "AuthUserList" auth_user_list;
    "AuthRoleList" auth_role_list;
    "AuthRoleAdd" auth_role_add;
    "AuthRoleDelete" auth_role_delete;
    "AuthRoleGet" auth_role_get;
    "AuthRoleGrantPermission" auth_role_grant_permission;
    "AuthRoleRevokePermission" auth_role_revoke_permission;
    "ClusterVersionSet" cluster_version_set;
    "ClusterMemberAttrSet" cluster_member_attr_set;
    "DowngradeInfoSet" downgrade_info_set;
    v2 { "PUT" "POST" "DELETE" "QGET" "SYNC" }
};

/// An entry that is being applied.
pub struct Applying {
    kind: Option<&'static Kind>,
    start: Instant,
}

impl Applying {
    pub fn begin(request: &InternalRaftRequest) -> Applying {
        Applying {
            kind: KINDS.iter().find(|kind| (kind.is)(request)),
            start: Instant::now(),
        }
    }

    pub fn end(self, ok: bool) {
        if let Some(kind) = self.kind {
            let series =
                kind.series[usize::from(ok)].get_or_init(|| APPLY.with(&[kind.version, kind.op, name(ok)]));
            series.observe_since(self.start);
        }
    }
}

fn name(ok: bool) -> &'static str {
    if ok { "true" } else { "false" }
}

static RANGES: [Lazy; 2] = [const { Lazy::new() }; 2];

pub fn range(took: Duration, ok: bool) {
    let series = RANGES[usize::from(ok)].get_or_init(|| RANGE.with(&[name(ok)]));
    series.observe(took.as_secs_f64());
}
