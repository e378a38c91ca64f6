//! Every method of every service.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use component_base::http::Body;
use component_base::metrics::{self, Counter, CounterValue, Histogram, HistogramValue};
use component_base::serve::BoxFuture;
use http::{Request, Response};

use super::grpc::{self, Answer, Inbound, Reply, lasting, unary};
use super::status::{Code, Status};
use super::{
    auth, cluster, downgrade, election, endless, health, kv, lease, lock, maintenance, range_stream,
    snapshot, watch,
};
use crate::server::{EtcdServer, ServerError};

type Call = fn(Arc<EtcdServer>, Request<Inbound>) -> BoxFuture<'static, Answer>;

pub struct Method {
    /// Without the leading slash.
    path: &'static str,
    kind: &'static str,
    call: Call,
}

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI_STREAM: &str = "bidi_stream";

const fn method(path: &'static str, kind: &'static str, call: Call) -> Method {
    Method { path, kind, call }
}

/// The hot ones first.
pub static METHODS: &[Method] = &[
    method("etcdserverpb.KV/Txn", UNARY, |server, request| {
        unary(server, request, kv::txn)
    }),
    method("etcdserverpb.KV/Range", UNARY, |server, request| {
        unary(server, request, kv::range)
    }),
    method("etcdserverpb.KV/Put", UNARY, |server, request| {
        unary(server, request, kv::put)
    }),
    method("etcdserverpb.KV/DeleteRange", UNARY, |server, request| {
        unary(server, request, kv::delete_range)
    }),
    method("etcdserverpb.KV/RangeStream", SERVER_STREAM, |server, request| {
        unary(server, request, range_stream::range_stream)
    }),
    method("etcdserverpb.KV/Compact", UNARY, |server, request| {
        unary(server, request, kv::compact)
    }),
    method("etcdserverpb.Watch/Watch", BIDI_STREAM, watch::watch),
    method("etcdserverpb.Lease/LeaseGrant", UNARY, |server, request| {
        unary(server, request, lease::grant)
    }),
    method("etcdserverpb.Lease/LeaseRevoke", UNARY, |server, request| {
        unary(server, request, lease::revoke)
    }),
    method(
        "etcdserverpb.Lease/LeaseKeepAlive",
        BIDI_STREAM,
        lease::keep_alive,
    ),
    method("etcdserverpb.Lease/LeaseTimeToLive", UNARY, |server, request| {
        unary(server, request, lease::time_to_live)
    }),
    method("etcdserverpb.Lease/LeaseLeases", UNARY, |server, request| {
        unary(server, request, lease::leases)
    }),
    method("etcdserverpb.Cluster/MemberAdd", UNARY, |server, request| {
        unary(server, request, cluster::add)
    }),
    method("etcdserverpb.Cluster/MemberRemove", UNARY, |server, request| {
        unary(server, request, cluster::remove)
    }),
    method("etcdserverpb.Cluster/MemberUpdate", UNARY, |server, request| {
        unary(server, request, cluster::update)
    }),
    method("etcdserverpb.Cluster/MemberList", UNARY, |server, request| {
        unary(server, request, cluster::list)
    }),
    method("etcdserverpb.Cluster/MemberPromote", UNARY, |server, request| {
        unary(server, request, cluster::promote)
    }),
    method("etcdserverpb.Maintenance/Alarm", UNARY, |server, request| {
        unary(server, request, maintenance::alarm)
    }),
    method("etcdserverpb.Maintenance/Status", UNARY, |server, request| {
        unary(server, request, maintenance::status)
    }),
    method("etcdserverpb.Maintenance/Defragment", UNARY, |server, request| {
        unary(server, request, maintenance::defragment)
    }),
    method("etcdserverpb.Maintenance/Hash", UNARY, |server, request| {
        unary(server, request, maintenance::hash)
    }),
    method("etcdserverpb.Maintenance/HashKV", UNARY, |server, request| {
        unary(server, request, maintenance::hash_kv)
    }),
    method(
        "etcdserverpb.Maintenance/Snapshot",
        SERVER_STREAM,
        |server, request| unary(server, request, snapshot::snapshot),
    ),
    method("etcdserverpb.Maintenance/MoveLeader", UNARY, |server, request| {
        unary(server, request, maintenance::move_leader)
    }),
    method("etcdserverpb.Maintenance/Downgrade", UNARY, |server, request| {
        unary(server, request, downgrade::downgrade)
    }),
    method("etcdserverpb.Auth/AuthEnable", UNARY, |server, request| {
        unary(server, request, auth::enable)
    }),
    method("etcdserverpb.Auth/AuthDisable", UNARY, |server, request| {
        unary(server, request, auth::disable)
    }),
    method("etcdserverpb.Auth/AuthStatus", UNARY, |server, request| {
        unary(server, request, auth::status)
    }),
    method("etcdserverpb.Auth/Authenticate", UNARY, |server, request| {
        unary(server, request, auth::authenticate)
    }),
    method("etcdserverpb.Auth/UserAdd", UNARY, |server, request| {
        unary(server, request, auth::user_add)
    }),
    method("etcdserverpb.Auth/UserGet", UNARY, |server, request| {
        unary(server, request, auth::user_get)
    }),
    method("etcdserverpb.Auth/UserList", UNARY, |server, request| {
        unary(server, request, auth::user_list)
    }),
    method("etcdserverpb.Auth/UserDelete", UNARY, |server, request| {
        unary(server, request, auth::user_delete)
    }),
    method(
        "etcdserverpb.Auth/UserChangePassword",
        UNARY,
        |server, request| unary(server, request, auth::user_change_password),
    ),
    method("etcdserverpb.Auth/UserGrantRole", UNARY, |server, request| {
        unary(server, request, auth::user_grant_role)
    }),
    method("etcdserverpb.Auth/UserRevokeRole", UNARY, |server, request| {
        unary(server, request, auth::user_revoke_role)
    }),
    method("etcdserverpb.Auth/RoleAdd", UNARY, |server, request| {
        unary(server, request, auth::role_add)
    }),
    method("etcdserverpb.Auth/RoleGet", UNARY, |server, request| {
        unary(server, request, auth::role_get)
    }),
    method("etcdserverpb.Auth/RoleList", UNARY, |server, request| {
        unary(server, request, auth::role_list)
    }),
    method("etcdserverpb.Auth/RoleDelete", UNARY, |server, request| {
        unary(server, request, auth::role_delete)
    }),
    method(
        "etcdserverpb.Auth/RoleGrantPermission",
        UNARY,
        |server, request| unary(server, request, auth::role_grant_permission),
    ),
    method(
        "etcdserverpb.Auth/RoleRevokePermission",
        UNARY,
        |server, request| unary(server, request, auth::role_revoke_permission),
    ),
    method("v3lockpb.Lock/Lock", UNARY, |server, request| {
        lasting(server, request, lock::lock)
    }),
    method("v3lockpb.Lock/Unlock", UNARY, |server, request| {
        unary(server, request, lock::unlock)
    }),
    method("v3electionpb.Election/Campaign", UNARY, |server, request| {
        lasting(server, request, election::campaign)
    }),
    method("v3electionpb.Election/Proclaim", UNARY, |server, request| {
        unary(server, request, election::proclaim)
    }),
    method("v3electionpb.Election/Leader", UNARY, |server, request| {
        unary(server, request, election::leader)
    }),
    method(
        "v3electionpb.Election/Observe",
        SERVER_STREAM,
        |server, request| lasting(server, request, election::observe),
    ),
    method("v3electionpb.Election/Resign", UNARY, |server, request| {
        unary(server, request, election::resign)
    }),
    method("grpc.health.v1.Health/Check", UNARY, |server, request| {
        unary(server, request, health::check)
    }),
    method("grpc.health.v1.Health/Watch", SERVER_STREAM, |server, request| {
        unary(server, request, health::watch)
    }),
];

static STARTED: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "grpc_server_started_total",
        "Total number of RPCs started on the server.",
        &["grpc_type", "grpc_service", "grpc_method"],
    )
});
static HANDLED: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "grpc_server_handled_total",
        "Total number of RPCs completed on the server, regardless of success or failure.",
        &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
    )
});
static HANDLING: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "grpc_server_handling_seconds",
        "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
        &["grpc_type", "grpc_service", "grpc_method"],
        metrics::DEFAULT_BUCKETS,
    )
});

/// What is counted for a method, looked up once.
struct Counted {
    started: Arc<CounterValue>,
    ok: Arc<CounterValue>,
    seconds: Arc<HistogramValue>,
}

static COUNTED: LazyLock<Vec<Counted>> = LazyLock::new(|| METHODS.iter().map(Method::counted).collect());
static SENT: LazyLock<Arc<CounterValue>> = LazyLock::new(|| crate::metrics::SENT_BYTES.with(&[]));

impl Method {
    pub fn path(&self) -> &'static str {
        self.path
    }

    fn names(&self) -> [&'static str; 3] {
        let (service, name) = self.path.split_once('/').unwrap_or((self.path, ""));
        [self.kind, service, name]
    }

    fn counted(&self) -> Counted {
        let [kind, service, name] = self.names();
        Counted {
            started: STARTED.with(&[kind, service, name]),
            ok: HANDLED.with(&[kind, service, name, Code::Ok.name()]),
            seconds: HANDLING.with(&[kind, service, name]),
        }
    }

    fn count(&self, counted: &Counted, answer: &Answer, start: Instant) {
        counted.seconds.observe_since(start);
        match answer {
            Ok(reply) => {
                counted.ok.inc();
                if let Reply::Message(bytes) = reply {
                    SENT.add(bytes.len() as f64);
                }
            }
            Err(status) => {
                let [kind, service, name] = self.names();
                HANDLED.with(&[kind, service, name, status.code.name()]).inc();
            }
        }
    }
}

pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

pub async fn serve(server: Arc<EtcdServer>, request: Request<Inbound>) -> Response<Body> {
    let path = request.uri().path().strip_prefix('/').unwrap_or_default();
    let Some(place) = METHODS.iter().position(|method| method.path == path) else {
        return grpc::response(Err(unknown(path)));
    };
    let (method, counted, start) = (&METHODS[place], &COUNTED[place], Instant::now());
    counted.started.inc();
    let call = server
        .traces
        .get()
        .map(|traces| traces.call(method.path, &request));
    let requires_leader = endless::requires_leader(&request);
    let answer = match refusal(&server, method, requires_leader) {
        Some(error) => Err(error.into()),
        None if endless::is_endless(method.path) => {
            let answer = (method.call)(server.clone(), request).await;
            endless::until_told(&server, answer, requires_leader)
        }
        None => (method.call)(server, request).await,
    };
    method.count(counted, &answer, start);
    grpc::response(match call {
        Some(call) => call.until(answer),
        None => answer,
    })
}

/// What a learner answers; a Range says in its body whether it may be.
const FOR_LEARNERS: &[&str] = &[
    "etcdserverpb.KV/Range",
    "etcdserverpb.Maintenance/Status",
    "etcdserverpb.Maintenance/Snapshot",
    "grpc.health.v1.Health/Check",
];

fn refusal(server: &EtcdServer, method: &Method, requires_leader: bool) -> Option<ServerError> {
    if !FOR_LEARNERS.contains(&method.path) && server.is_learner() {
        return Some(ServerError::Learner);
    }
    (requires_leader && server.leader() == 0).then_some(ServerError::NoLeader)
}

fn unknown(path: &str) -> Status {
    let (service, method) = path.split_once('/').unwrap_or((path, ""));
    match METHODS
        .iter()
        .any(|known| known.path.split('/').next() == Some(service))
    {
        true => Status::unimplemented(format!("unknown method {method} for service {service}")),
        false => Status::unimplemented(format!("unknown service {service}")),
    }
}
