//! One server and one identity: every request of a process passes here.

use crate::api::{Accept, Api, Payload, ResourceType, collection_path, refusal};
use crate::error::Error;
use crate::kubeconfig::{Credentials, RestConfig};
use crate::leaderelection::Fence;
use crate::metrics;
use crate::object::PartialObjectMetadata;
use crate::service_account::ServiceAccountIdentity;
use crate::transport::{Body, Pool, Transport, describe};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::Resource;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The server gives up on a request after a minute; waiting longer hears nothing new.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(65);
/// Upstream's client repeats a request that was answered with Retry-After this many times.
const MAX_RETRIES: u32 = 10;
/// A single answer above this is refused instead of filling memory; lists are paginated far below.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// The body of a refusal is read up to here.
const MAX_REFUSAL_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    deadline: Duration,
    fence: Option<Fence>,
    identity: Option<Arc<ServiceAccountIdentity>>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    credentials: Credentials,
    user_agent: HeaderValue,
    /// The path of the server URL, which precedes every request's.
    prefix: String,
    host: String,
}

impl Client {
    pub fn new(config: RestConfig, user_agent: &str) -> Result<Self, Error> {
        let pool = Pool::new(&config)?;
        let (prefix, host) = (config.server.prefix.clone(), config.server.authority.to_string());
        Ok(Self::build(
            Arc::new(pool),
            config.credentials,
            user_agent,
            prefix,
            host,
        ))
    }

    /// A client on anything that answers requests; see [`crate::fake`].
    pub fn on(transport: Arc<dyn Transport>, user_agent: &str) -> Self {
        Self::build(
            transport,
            Credentials::default(),
            user_agent,
            String::new(),
            "fake".into(),
        )
    }

    fn build(
        transport: Arc<dyn Transport>,
        credentials: Credentials,
        user_agent: &str,
        prefix: String,
        host: String,
    ) -> Self {
        let user_agent = HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("ferrokube"));
        let inner = Inner {
            transport,
            credentials,
            user_agent,
            prefix,
            host,
        };
        Client {
            inner: Arc::new(inner),
            deadline: DEFAULT_DEADLINE,
            fence: None,
            identity: None,
        }
    }

    /// The same connection with another limit on the time to an answer.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Client {
            deadline,
            ..self.clone()
        }
    }

    /// The same connection; a write is refused here once the leadership that armed the fence is over.
    pub fn fenced(&self, fence: impl Into<Fence>) -> Self {
        Client {
            fence: Some(fence.into()),
            ..self.clone()
        }
    }

    /// The same connection in the name of a service account, whose tokens `issuer` fetches. For a connection without a client
    /// certificate: see [`RestConfig::anonymous`].
    pub fn as_service_account(&self, issuer: &Client, namespace: &str, name: &str) -> Self {
        let identity = ServiceAccountIdentity::new(issuer.clone(), namespace, name);
        Client {
            identity: Some(Arc::new(identity)),
            ..self.clone()
        }
    }

    /// All namespaces of a namespaced kind, or a kind without namespaces.
    pub fn all<T: Resource>(&self) -> Api<T> {
        Api::new(self.clone(), collection::<T>(None), Accept::Json)
    }

    pub fn namespaced<T: Resource>(&self, namespace: &str) -> Api<T> {
        Api::new(self.clone(), collection::<T>(Some(namespace)), Accept::Json)
    }

    /// Any resource that discovery knows, reduced to metadata by the server.
    pub fn metadata(&self, resource: &ResourceType, namespace: Option<&str>) -> Api<PartialObjectMetadata> {
        let path = collection_path(&resource.group, &resource.version, namespace, &resource.resource);
        Api::new(self.clone(), path, Accept::Metadata)
    }

    /// A typed kind whose watchers need only its metadata.
    pub fn metadata_of<T: Resource>(&self) -> Api<PartialObjectMetadata> {
        Api::new(self.clone(), collection::<T>(None), Accept::Metadata)
    }

    /// Any request. A refusal is an answer here, not an error.
    pub async fn raw(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        self.send(request, Some(self.deadline)).await
    }

    /// GET of a path outside the resources, decoded: discovery, `/version`.
    pub async fn get_json<R: DeserializeOwned>(&self, path: &str) -> Result<R, Error> {
        self.request(Method::GET, path.to_owned(), "application/json", None)
            .await
    }

    /// POST of a body to a path, decoded: the review APIs, which are no objects.
    pub async fn post_json<B: serde::Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<R, Error> {
        let payload = crate::api::json_body(body, || path.to_owned())?;
        self.request(Method::POST, path.to_owned(), "application/json", Some(payload))
            .await
    }

    pub(crate) async fn request<R: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        accept: &'static str,
        body: Option<Payload>,
    ) -> Result<R, Error> {
        let (until, name) = (Instant::now() + self.deadline, format!("{method} {path}"));
        let answer = async {
            let response = self.attempt(&method, &path, accept, body.as_ref(), until).await?;
            collect(response.into_body(), &name, MAX_ANSWER_BYTES).await
        };
        let Ok(outcome) = tokio::time::timeout_at(until.into(), answer).await else {
            return Err(Error::Timeout {
                request: name,
                after: self.deadline,
            });
        };
        let bytes = outcome?;
        serde_json::from_slice(&bytes).map_err(|source| decode_error(&name, &bytes, source))
    }

    /// A response whose body outlives any deadline.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: String,
        accept: &'static str,
    ) -> Result<Body, Error> {
        let until = Instant::now() + self.deadline;
        let response = self.attempt(&method, &path, accept, None, until).await?;
        Ok(response.into_body())
    }

    /// Repeats what the server asked to repeat (Retry-After on 429 and 5xx) while the deadline allows it.
    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        accept: &'static str,
        body: Option<&Payload>,
        until: Instant,
    ) -> Result<Response<Body>, Error> {
        let mut retries = 0;
        loop {
            let request = self.compose(method, path, accept, body)?;
            let left = until.saturating_duration_since(Instant::now());
            let response = self.send(request, Some(left)).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let wait = retry_after(&response);
            if response.status() == StatusCode::UNAUTHORIZED && retries == 0 && self.renew_identity().await {
                retries += 1;
                continue;
            }
            match wait {
                Some(wait) if retries < MAX_RETRIES && Instant::now() + wait < until => {
                    retries += 1;
                    tokio::time::sleep(crate::jitter(wait, 0.1)).await;
                }
                _ => return Err(self.refused(response, wait).await),
            }
        }
    }

    /// True when there may be a better token than the one that was refused.
    async fn renew_identity(&self) -> bool {
        match &self.identity {
            Some(identity) => {
                identity.forget().await;
                true
            }
            None => false,
        }
    }

    async fn refused(&self, response: Response<Body>, wait: Option<Duration>) -> Error {
        let code = response.status().as_u16();
        let seconds = wait.and_then(|w| i32::try_from(w.as_secs()).ok());
        match collect(response.into_body(), "the body of a refusal", MAX_REFUSAL_BYTES).await {
            Ok(body) => refusal(code, seconds, &body),
            Err(_) => refusal(code, seconds, b""),
        }
    }

    fn compose(
        &self,
        method: &Method,
        path: &str,
        accept: &'static str,
        body: Option<&Payload>,
    ) -> Result<Request<Bytes>, Error> {
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, accept);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, body.content_type);
        }
        let bytes = body.map(|b| b.bytes.clone()).unwrap_or_default();
        request
            .body(bytes)
            .map_err(|e| Error::transport(format!("{method} {path}"), e))
    }

    async fn send(
        &self,
        mut request: Request<Bytes>,
        deadline: Option<Duration>,
    ) -> Result<Response<Body>, Error> {
        self.check_fence(request.method())?;
        self.prefix(&mut request)?;
        self.identify(request.headers_mut()).await?;
        let (method, started) = (request.method().clone(), Instant::now());
        let outcome = self.inner.transport.send(request, deadline).await;
        metrics::request(
            &method,
            &self.inner.host,
            outcome.as_ref().ok().map(Response::status),
            started.elapsed(),
        );
        outcome
    }

    /// Reads stay allowed: caches are kept warm while another instance leads.
    fn check_fence(&self, method: &Method) -> Result<(), Error> {
        let reads = *method == Method::GET;
        let broken = self.fence.as_ref().filter(|_| !reads).and_then(Fence::broken);
        broken.map_or(Ok(()), |lock| Err(Error::Fenced(lock)))
    }

    fn prefix(&self, request: &mut Request<Bytes>) -> Result<(), Error> {
        if self.inner.prefix.is_empty() {
            return Ok(());
        }
        let uri = format!("{}{}", self.inner.prefix, request.uri());
        *request.uri_mut() = uri
            .parse()
            .map_err(|e: http::uri::InvalidUri| Error::transport(describe(request), e))?;
        Ok(())
    }

    async fn identify(&self, headers: &mut HeaderMap) -> Result<(), Error> {
        headers.insert(USER_AGENT, self.inner.user_agent.clone());
        if let Some(identity) = &self.identity {
            headers.insert(AUTHORIZATION, Box::pin(identity.authorization()).await?);
            return Ok(());
        }
        if let Some(authorization) = self.inner.credentials.authorization()? {
            headers.insert(AUTHORIZATION, authorization);
        }
        for (name, value) in self.inner.credentials.impersonation() {
            headers.append(name.clone(), value.clone());
        }
        Ok(())
    }
}

fn collection<T: Resource>(namespace: Option<&str>) -> String {
    collection_path(T::GROUP, T::VERSION, namespace, T::URL_PATH_SEGMENT)
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let status = response.status();
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return None;
    }
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// Frame by frame: `Limited` asks for conversions that the compiler cannot prove Send across an await.
async fn collect(mut body: Body, name: &str, limit: usize) -> Result<Bytes, Error> {
    let mut out = bytes::BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame
            .map_err(|error| Error::transport(name.to_owned(), error))?
            .into_data()
        else {
            continue;
        };
        if out.len() + data.len() > limit {
            return Err(Error::transport(
                name.to_owned(),
                format!("the answer is larger than {limit} bytes"),
            ));
        }
        out.extend_from_slice(&data);
    }
    Ok(out.freeze())
}

/// Names the object that did not decode, when the answer says that much.
fn decode_error(request: &str, bytes: &[u8], source: serde_json::Error) -> Error {
    let object = serde_json::from_slice::<PartialObjectMetadata>(bytes)
        .ok()
        .filter(|o| o.metadata.name.is_some());
    let what = match object {
        Some(object) => format!(
            "{} {} (answer to {request})",
            object.kind,
            crate::object_key(&object)
        ),
        None => format!("the answer to {request}"),
    };
    Error::Decode { what, source }
}
