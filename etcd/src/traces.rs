//! Spans of what clients ask for, sent to an OpenTelemetry collector (`--enable-distributed-tracing`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use component_base::flags::Flags;
use component_base::http::BoxError;
use component_base::serve::ConnInfo;
use http::{HeaderMap, Request};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanKind, Status as SpanStatus, Tracer as _, TracerProvider as _};
use opentelemetry::{Context as SpanContext, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use tracing::{info, warn};

use crate::config::spelling;
use crate::rpc::grpc::{Answer, Reply};
use crate::rpc::status::Code;

const MAX_PER_MILLION: i64 = 1_000_000;
/// What has not been sent yet may take so long at the end.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    address: String,
    service_name: String,
    instance_id: String,
    per_million: u32,
}

impl Settings {
    /// None where nothing is to be traced.
    pub fn from_flags(flags: &Flags) -> Result<Option<Settings>> {
        let given = |name: &str| spelling(flags, name);
        if !flags.bool(&given("enable-distributed-tracing")) {
            return Ok(None);
        }
        let rate = flags.int(&given("distributed-tracing-sampling-rate"));
        if !(0..=MAX_PER_MILLION).contains(&rate) {
            bail!(
                "invalid value {rate} for --distributed-tracing-sampling-rate: it counts spans for each million, from 0 to {MAX_PER_MILLION}"
            );
        }
        let text = |name: &str| flags.string(&given(name)).to_owned();
        Ok(Some(Settings {
            address: text("distributed-tracing-address"),
            service_name: text("distributed-tracing-service-name"),
            instance_id: text("distributed-tracing-instance-id"),
            per_million: rate as u32,
        }))
    }
}

pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    parents: TraceContextPropagator,
}

impl Traces {
    /// The collector need not be there yet.
    pub fn start(settings: &Settings) -> Result<Traces> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(format!("http://{}", settings.address))
            .build()?;
        let mut resource = Resource::builder_empty().with_service_name(settings.service_name.clone());
        if !settings.instance_id.is_empty() {
            let id = KeyValue::new("service.instance.id", settings.instance_id.clone());
            resource = resource.with_attribute(id);
        }
        // A client that samples decides for us, too.
        let own = match settings.per_million {
            0 => Sampler::AlwaysOff,
            rate => Sampler::TraceIdRatioBased(f64::from(rate) / MAX_PER_MILLION as f64),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .with_sampler(Sampler::ParentBased(Box::new(own)))
            .build();
        info!(
            address = settings.address,
            "service-name" = settings.service_name,
            "service-instance-id" = settings.instance_id,
            "sampling-rate" = settings.per_million,
            "distributed tracing enabled"
        );
        Ok(Traces {
            tracer: provider.tracer("etcd"),
            provider,
            parents: TraceContextPropagator::new(),
        })
    }

    /// Begins the span of a call.
    pub fn call<B>(&self, path: &'static str, request: &Request<B>) -> Call {
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        let mut attributes = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service),
            KeyValue::new("rpc.method", method),
        ];
        if let Some(info) = request.extensions().get::<Arc<ConnInfo>>() {
            attributes.push(KeyValue::new("net.sock.peer.addr", info.peer.ip().to_string()));
            attributes.push(KeyValue::new("net.sock.peer.port", i64::from(info.peer.port())));
        }
        let parent = Headers(request.headers());
        let parent = self.parents.extract_with_context(&SpanContext::new(), &parent);
        let span = self
            .tracer
            .span_builder(path)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        Call(span)
    }

    /// Sends what is left; blocks.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FAREWELL) {
            warn!(error = %error, "the last spans were not sent");
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The span of a call that is under way.
pub struct Call(Span);

impl Call {
    /// Ends with the answer, or with the stream that it is.
    pub fn until(mut self, answer: Answer) -> Answer {
        match answer {
            Ok(Reply::Stream(body)) if self.0.is_recording() => {
                let traced = Traced {
                    body,
                    call: self,
                    ended: false,
                };
                Ok(Reply::Stream(traced.boxed_unsync()))
            }
            Ok(reply) => {
                self.ended_as(Code::Ok as i64, "");
                Ok(reply)
            }
            Err(status) => {
                self.ended_as(status.code as i64, &status.message);
                Err(status)
            }
        }
    }

    /// Of the codes, those are errors that are the server's fault.
    fn ended_as(&mut self, code: i64, message: &str) {
        self.0.set_attribute(KeyValue::new("rpc.grpc.status_code", code));
        if SERVER_FAULTS.iter().any(|fault| *fault as i64 == code) {
            self.0.set_status(SpanStatus::error(message.to_owned()));
        }
    }
}

const SERVER_FAULTS: [Code; 6] = [
    Code::Unknown,
    Code::DeadlineExceeded,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
];

/// A stream whose span ends with it, cancelled where nobody read it to its end.
struct Traced {
    body: component_base::http::Body,
    call: Call,
    ended: bool,
}

impl Drop for Traced {
    fn drop(&mut self) {
        if !self.ended {
            self.call.ended_as(Code::Cancelled as i64, "");
        }
    }
}

impl http_body::Body for Traced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &next
            && let Some(trailers) = frame.trailers_ref()
        {
            let trailers = Headers(trailers);
            let (code, message) = (trailers.get("grpc-status"), trailers.get("grpc-message"));
            let code = code.and_then(|code| code.parse().ok()).unwrap_or_default();
            self.call.ended_as(code, message.unwrap_or_default());
            self.ended = true;
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Result<Option<Settings>> {
        let arguments = arguments.iter().map(|argument| (*argument).into());
        Settings::from_flags(&crate::config::flags().parse(arguments)?)
    }

    #[test]
    fn either_spelling_counts_and_a_rate_is_of_a_million() {
        assert_eq!(
            settings(&["--distributed-tracing-sampling-rate=-1"]).unwrap(),
            None
        );
        let both = settings(&[
            "--experimental-enable-distributed-tracing",
            "--experimental-distributed-tracing-address=127.0.0.1:1",
            "--distributed-tracing-sampling-rate=7",
        ]);
        let expected = Settings {
            address: "127.0.0.1:1".to_owned(),
            service_name: "etcd".to_owned(),
            instance_id: String::new(),
            per_million: 7,
        };
        assert_eq!(both.unwrap(), Some(expected));
        let refused = settings(&[
            "--enable-distributed-tracing",
            "--distributed-tracing-sampling-rate=1000001",
        ]);
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("--distributed-tracing-sampling-rate") && error.contains("1000000"),
            "{error}"
        );
    }
}
