//! A call, from its path in the table to its counted answer.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use component_base::http::Body;
use component_base::metrics::{self, Counter, CounterValue, Histogram, HistogramValue};
use http::{Request, Response};

use super::grpc::{self, Answer, Inbound, Reply};
use super::status::{Code, Status};
use super::table::{METHODS, Method};
use super::{endless, stream};
use crate::metrics::clients;
use crate::server::{EtcdServer, ServerError};
use crate::traces::Call;

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
    let (method, mut handling) = (&METHODS[place], Handling::begin(place));
    clients::count(request.headers(), method.is_stream());
    let call = server
        .traces
        .get()
        .map(|traces| traces.call(method.path, &request));
    let requires_leader = endless::requires_leader(&request);
    let answer = match refusal(&server, method, requires_leader) {
        Some(error) => Err(error.into()),
        None if method.is_stream() => match (method.call)(server.clone(), request).await {
            Ok(Reply::Stream(body)) => {
                let end = endless::is_endless(method.path).then(|| endless::told(&server, requires_leader));
                let body = stream::counted(body, end, handling);
                return grpc::response(ended_with(call, Ok(Reply::Stream(body))));
            }
            other => other,
        },
        None => (method.call)(server, request).await,
    };
    handling.code = answer.as_ref().map_or_else(|status| status.code, |_| Code::Ok);
    drop(handling);
    grpc::response(ended_with(call, answer))
}

/// The span of a call ends with what it answers.
fn ended_with(call: Option<Call>, answer: Answer) -> Answer {
    match call {
        Some(call) => call.until(answer),
        None => answer,
    }
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
    match METHODS.iter().any(|known| known.names().0 == service) {
        true => Status::unimplemented(format!("unknown method {method} for service {service}")),
        false => Status::unimplemented(format!("unknown service {service}")),
    }
}

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
static RECEIVED: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "grpc_server_msg_received_total",
        "Total number of RPC stream messages received on the server.",
        &["grpc_type", "grpc_service", "grpc_method"],
    )
});
static SENT: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "grpc_server_msg_sent_total",
        "Total number of gRPC stream messages sent by the server.",
        &["grpc_type", "grpc_service", "grpc_method"],
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
    sent: Arc<CounterValue>,
}

static COUNTED: LazyLock<Vec<Counted>> = LazyLock::new(|| METHODS.iter().map(Counted::of).collect());

impl Counted {
    fn of(method: &Method) -> Self {
        let (service, name) = method.names();
        let labels = [method.kind, service, name];
        let started = STARTED.with(&labels);
        let ok = HANDLED.with(&[method.kind, service, name, Code::Ok.name()]);
        // One message each way is what there is to a call that is no stream.
        if !method.reads_stream() {
            RECEIVED.share(&labels, started.clone());
        }
        if !method.is_stream() {
            SENT.share(&labels, ok.clone());
        }
        Counted {
            started,
            ok,
            seconds: HANDLING.with(&labels),
            sent: SENT.with(&labels),
        }
    }
}

/// Shows every method, called or not.
pub fn count_from_zero() {
    LazyLock::force(&COUNTED);
    METHODS
        .iter()
        .filter(|method| method.reads_stream())
        .for_each(|method| {
            received(method.path);
        });
}

/// Messages that a method has read from its stream.
pub fn received(path: &str) -> Arc<CounterValue> {
    let (service, name) = path.split_once('/').unwrap_or((path, ""));
    RECEIVED.with(&[super::table::BIDI_STREAM, service, name])
}

/// A call that was begun. It is counted as handled when this goes, which for a stream is at the stream's end.
pub struct Handling {
    place: usize,
    start: Instant,
    /// How it ends unless it is told; nobody tells of a stream that its client drops.
    pub code: Code,
}

impl Handling {
    fn begin(place: usize) -> Handling {
        COUNTED[place].started.inc();
        Handling {
            place,
            start: Instant::now(),
            code: Code::Cancelled,
        }
    }
}

impl Handling {
    pub fn sent(&self, messages: usize) {
        COUNTED[self.place].sent.add(messages as f64);
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let (counted, method) = (&COUNTED[self.place], &METHODS[self.place]);
        counted.seconds.observe_since(self.start);
        if self.code == Code::Ok {
            return counted.ok.inc();
        }
        let (service, name) = method.names();
        HANDLED
            .with(&[method.kind, service, name, self.code.name()])
            .inc();
    }
}
