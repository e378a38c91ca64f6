//! A client of etcd's gRPC API with clientv3's behaviour: one logical connection over several endpoints, calls that wait
//! for a server until their deadline, retries where repeating is safe, error texts of the original.
//!
//! A call's way: [`Client::call`] takes a connected channel from [`connect`], adds the token and version metadata, sends,
//! and asks [`retry`] what an error means. Streams ([`watch`], [`lease`]) resume where they broke off and are read one
//! message at a time, so that a slow terminal slows the server, not this process's memory.

pub mod auth;
mod cluster;
pub mod concurrency;
pub mod config;
mod connect;
mod context;
pub mod discovery;
mod endpoint;
mod error;
mod greeting;
pub mod kv;
pub mod lease;
pub mod mirror;
mod retry;
pub mod tls;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub use config::{Auth, Config, Secure};
pub use context::Context;
pub use error::Error;
pub use retry::Policy;

use crate::zap::Source;
use connect::Connector;
pub use connect::errno_text;

/// Upstream's `defaultMaxCallSendMsgSize`.
const MAX_SEND_BYTES: usize = 2 * 1024 * 1024;
/// Upstream's `defaultMaxCallRecvMsgSize`: the server bounds what it sends.
const MAX_RECEIVE_BYTES: usize = i32::MAX as usize;
const API_VERSION: &str = "3.6";
/// Before the next connection to something that does not speak HTTP/2.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    connector: Connector,
    token: Mutex<Option<String>>,
    source: Source,
}

impl Client {
    /// Connects lazily, but asks for a token now when there is a user with a password.
    pub async fn new(config: Config) -> Result<Client, Error> {
        Client::named(config, "etcd-client").await
    }

    pub async fn named(config: Config, logger: &'static str) -> Result<Client, Error> {
        config.check_limits()?;
        let connector = Connector::new(&config)?;
        let client = Client(Arc::new(Inner {
            token: Mutex::new(config.auth.as_ref().and_then(|auth| auth.token.clone())),
            connector,
            config,
            source: Source::new(logger, "v3/retry_interceptor.go:65"),
        }));
        client
            .authenticate(&Context::within(client.0.config.dial_timeout))
            .await?;
        Ok(client)
    }

    pub fn endpoints(&self) -> &[String] {
        &self.0.config.endpoints
    }

    /// Sends one request. `send` may run more than once, as `policy` allows.
    pub async fn call<M, T, S, F>(
        &self,
        context: &Context,
        policy: Policy,
        method: &'static str,
        message: M,
        send: S,
    ) -> Result<T, Error>
    where
        M: Clone,
        S: Fn(Channel, Request<M>) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        for attempt in 0..retry::MAX_ATTEMPTS {
            context
                .sleep(retry::backoff(attempt, self.endpoints().len()))
                .await?;
            let status = match self.attempt(context, &message, &send).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            self.log_failure(method, attempt, &status);
            if context.expired() || retry::is_context(&status) {
                return Err(Error::from_status(status, context));
            }
            if self.refresh_token(context, &status).await? {
                continue;
            }
            if !retry::is_safe(policy, &status, self.endpoints().len()) {
                return Err(Error::from_status(status, context));
            }
        }
        Err(Error::from_status(
            Status::unavailable("too many attempts"),
            context,
        ))
    }

    async fn attempt<M, T, S, F>(&self, context: &Context, message: &M, send: &S) -> Result<T, Status>
    where
        M: Clone,
        S: Fn(Channel, Request<M>) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let exchange = async {
            loop {
                let open = self.0.connector.open().await;
                let result = send(open.channel.clone(), self.request(message.clone())).await;
                let result = result.map_err(error::lost_connection);
                if !self.0.connector.judge(&open, result.as_ref().err()).await {
                    return result.map(Response::into_inner);
                }
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        };
        context
            .limit(exchange)
            .await
            .unwrap_or_else(|| Err(self.deadline_exceeded()))
    }

    /// What gRPC says when the deadline passed: the last trouble with connections, if that is what it waited for.
    fn deadline_exceeded(&self) -> Status {
        match self.0.connector.last_error() {
            Some(error) => Status::deadline_exceeded(format!("latest balancer error: {error}")),
            None => Status::deadline_exceeded("context deadline exceeded"),
        }
    }

    /// With the metadata that etcd's own client sends.
    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(
            "client-api-version",
            tonic::metadata::MetadataValue::from_static(API_VERSION),
        );
        let token = self.0.token.lock().clone();
        if let Some(token) = token.and_then(|token| token.parse().ok()) {
            metadata.insert("token", token);
        }
        request
    }

    /// For streams: no retries, the deadline only bounds the opening.
    pub(crate) async fn open<M, T, S, F>(&self, context: &Context, message: M, send: S) -> Result<T, Status>
    where
        S: FnOnce(Channel, Request<M>) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let exchange = async {
            let open = self.0.connector.open().await;
            let result = send(open.channel.clone(), self.request(message)).await;
            let result = result.map_err(error::lost_connection);
            self.0.connector.judge(&open, result.as_ref().err()).await;
            result.map(Response::into_inner)
        };
        context
            .limit(exchange)
            .await
            .unwrap_or_else(|| Err(self.deadline_exceeded()))
    }

    fn log_failure(&self, method: &str, attempt: usize, status: &Status) {
        use crate::go::json::string;
        let target = format!(
            "etcd-endpoints://{:p}/{}",
            Arc::as_ptr(&self.0),
            self.0.connector.authority()
        );
        let fields = [
            ("target", string(&target)),
            ("method", string(method)),
            ("attempt", attempt.to_string()),
            ("error", string(&error::status_text(status))),
        ];
        crate::zap::warn(self.0.source, "retrying of unary invoker failed", &fields);
    }

    pub(crate) fn max_send_bytes(&self) -> usize {
        match self.0.config.max_send_bytes {
            0 => MAX_SEND_BYTES,
            limit => limit,
        }
    }

    pub(crate) fn max_receive_bytes(&self) -> usize {
        match self.0.config.max_receive_bytes {
            0 => MAX_RECEIVE_BYTES,
            limit => limit,
        }
    }
}

/// Calls a unary method of a generated stub through [`Client::call`]: `unary!(client, context, Policy::Repeatable,
/// KvClient, range, "/etcdserverpb.KV/Range", request)`.
#[macro_export]
macro_rules! unary {
    ($client:expr, $context:expr, $policy:expr, $stub:ident, $method:ident, $path:literal, $message:expr) => {{
        let client = &$client;
        let message = $message;
        let limit = client.check_size(&message);
        let (send, receive) = (usize::MAX, client.max_receive_bytes());
        match limit {
            Err(error) => Err(error),
            Ok(()) => {
                client
                    .call(
                        &$context,
                        $policy,
                        $path,
                        message,
                        |channel, request| async move {
                            $stub::new(channel)
                                .max_encoding_message_size(send)
                                .max_decoding_message_size(receive)
                                .$method(request)
                                .await
                        },
                    )
                    .await
            }
        }
    }};
}

impl Client {
    /// Refused before it is sent, as grpc-go does.
    pub fn check_size(&self, message: &impl prost::Message) -> Result<(), Error> {
        let (size, limit) = (message.encoded_len(), self.max_send_bytes());
        if size <= limit {
            return Ok(());
        }
        let text = format!("trying to send message larger than max ({size} vs. {limit})");
        Err(Error::Grpc(Status::resource_exhausted(text)))
    }
}
