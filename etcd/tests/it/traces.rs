//! Spans as a collector gets them.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use etcd_api::etcdserverpb::{CompactionRequest, RangeRequest, WatchRequest};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use parking_lot::Mutex;
use prost::Message as _;

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, put};

/// Of a client that samples, as W3C writes it.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: [u8; 16] = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Collector {
    /// And its address.
    async fn start() -> (Collector, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let collector = Collector::default();
        let serving = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = serving.clone();
                let service = service_fn(move |request| collector.clone().export(request));
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        (collector, address)
    }

    async fn export(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let whole = request.into_body().collect().await.unwrap().to_bytes();
        let export = ExportTraceServiceRequest::decode(whole.slice(5..)).unwrap();
        self.0.lock().push(export);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let answer = Full::new(Bytes::from_static(&[0; 5]));
        let body = answer.with_trailers(async { Some(Ok(trailers)) }).boxed();
        let mut response = Response::new(body);
        let kind = "application/grpc".parse().unwrap();
        response.headers_mut().insert("content-type", kind);
        Ok(response)
    }

    fn spans(&self) -> Vec<Span> {
        let exports = self.0.lock();
        let scopes = exports
            .iter()
            .flat_map(|export| &export.resource_spans)
            .flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn span(&self, name: &str) -> Span {
        let spans = self.spans();
        let found = spans.iter().find(|span| span.name == name);
        found
            .unwrap_or_else(|| panic!("no span {name} among {spans:#?}"))
            .clone()
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.clone()?.value
}

fn text(value: &str) -> Option<Value> {
    Some(Value::StringValue(value.to_owned()))
}

fn sampled() -> tonic::Request<RangeRequest> {
    let mut request = tonic::Request::new(RangeRequest {
        key: "k".into(),
        ..Default::default()
    });
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", PARENT.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_a_span_for_each_call() {
    let (collector, address) = Collector::start().await;
    let mut etcd = Etcd::start_with(&[
        "--enable-distributed-tracing",
        &format!("--distributed-tracing-address={address}"),
        "--distributed-tracing-sampling-rate=1000000",
        "--distributed-tracing-instance-id=first",
    ]);
    let mut kv = etcd.kv().await;
    kv.put(put("k", "v")).await.unwrap();
    kv.range(sampled()).await.unwrap();
    let future = CompactionRequest {
        revision: 1000,
        physical: false,
    };
    kv.compact(future).await.unwrap_err();
    let mut watches = etcd.watch().await;
    let requests = tokio_stream::iter([WatchRequest::default()]);
    drop(watches.watch(requests).await.unwrap());
    etcd.signal("TERM");
    etcd.ends();

    let put = collector.span("etcdserverpb.KV/Put");
    assert_eq!(put.kind, SpanKind::Server as i32);
    for (name, value) in [
        ("rpc.system", text("grpc")),
        ("rpc.service", text("etcdserverpb.KV")),
        ("rpc.method", text("Put")),
        ("net.sock.peer.addr", text("127.0.0.1")),
        ("rpc.grpc.status_code", Some(Value::IntValue(0))),
    ] {
        assert_eq!(attribute(&put.attributes, name), value, "{name}");
    }
    assert!(put.end_time_unix_nano > put.start_time_unix_nano);
    assert_eq!(collector.span("etcdserverpb.KV/Range").trace_id, TRACE);
    // The client's fault, not the server's.
    let compact = collector.span("etcdserverpb.KV/Compact");
    let code = attribute(&compact.attributes, "rpc.grpc.status_code");
    assert_eq!(code, Some(Value::IntValue(tonic::Code::OutOfRange as i64)));
    assert!(
        compact
            .status
            .is_none_or(|status| status.code != StatusCode::Error as i32)
    );
    // Its client dropped it; or the member's end was faster.
    let watch = collector.span("etcdserverpb.Watch/Watch");
    let code = attribute(&watch.attributes, "rpc.grpc.status_code");
    let ends = [tonic::Code::Cancelled, tonic::Code::Unavailable];
    let ends = ends.map(|code| Some(Value::IntValue(code as i64)));
    assert!(ends.contains(&code), "{code:?}");
    let resource = collector.0.lock()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name"), text("etcd"));
    assert_eq!(
        attribute(&resource.attributes, "service.instance.id"),
        text("first")
    );
}

/// With a rate of none only what a client samples is sent; where nobody listens nothing else suffers.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_samples_decides_and_a_missing_collector_costs_nothing() {
    let (collector, address) = Collector::start().await;
    let nobody = free_port::free_port();
    for address in [address, format!("127.0.0.1:{nobody}")] {
        let mut etcd = Etcd::start_with(&[
            "--enable-distributed-tracing",
            &format!("--distributed-tracing-address={address}"),
        ]);
        let mut kv = etcd.kv().await;
        kv.put(put("k", "v")).await.unwrap();
        kv.range(sampled()).await.unwrap();
        etcd.signal("TERM");
        etcd.ends();
    }
    wait_for(|| !collector.spans().is_empty());
    let names: Vec<String> = collector.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["etcdserverpb.KV/Range"]);
}
