//! The runtime behind a unix socket. Every call has a deadline and is reported to the [`Observer`].

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::async_trait;
use tonic::transport::{Channel, Endpoint};

use crate::services::*;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;
use crate::{Error, Result};

/// Largest answer taken from a runtime; upstream's figure.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// What a stop may take beyond the grace that the container was given.
const STOP_MARGIN: Duration = Duration::from_secs(120);
/// A pull has no useful deadline (images are of any size), yet a wedged runtime must not hold a pod for ever.
const PULL_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Sees every call as it begins and ends: the kubelet's metrics and its "which call hangs" table.
pub trait Observer: Send + Sync {
    fn begin(&self, call: &'static str) -> u64;
    fn end(&self, token: u64, call: &'static str, took: Duration, error: Option<&Error>);
}

pub struct Unobserved;

impl Observer for Unobserved {
    fn begin(&self, _: &'static str) -> u64 {
        0
    }
    fn end(&self, _: u64, _: &'static str, _: Duration, _: Option<&Error>) {}
}

#[derive(Debug, Clone, Copy)]
pub struct RuntimeTimeouts {
    /// `runtimeRequestTimeout`
    pub request: Duration,
    pub connect: Duration,
}

impl Default for RuntimeTimeouts {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(120),
            connect: Duration::from_secs(1),
        }
    }
}

#[derive(Clone)]
pub struct RemoteRuntime {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
    timeouts: RuntimeTimeouts,
    observer: Arc<dyn Observer>,
}

impl RemoteRuntime {
    /// `endpoint` is `unix:///path`, `unix:path` or a bare path. The connection is made by the first call and made again when lost.
    pub fn connect(
        endpoint: &str,
        image_endpoint: Option<&str>,
        timeouts: RuntimeTimeouts,
        observer: Arc<dyn Observer>,
    ) -> Result<Self> {
        let channel = channel(socket_path(endpoint)?, timeouts.connect);
        let images = match image_endpoint.filter(|e| !e.is_empty() && *e != endpoint) {
            Some(other) => self::channel(socket_path(other)?, timeouts.connect),
            None => channel.clone(),
        };
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            image: ImageServiceClient::new(images)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            timeouts,
            observer,
        })
    }

    async fn call<T, F>(&self, call: &'static str, deadline: Duration, future: F) -> Result<T>
    where
        F: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut observed = Observed::begin(self.observer.as_ref(), call);
        let result = match tokio::time::timeout(deadline, future).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(call, &status)),
            Err(_) => Err(Error::new(
                call,
                tonic::Code::DeadlineExceeded,
                format!("{call} did not answer within {}s", deadline.as_secs_f32()),
            )),
        };
        observed.end(result.as_ref().err());
        result
    }
}

/// A call that its caller gives up ends too.
struct Observed<'a> {
    observer: &'a dyn Observer,
    token: u64,
    call: &'static str,
    start: Instant,
    ended: bool,
}

impl<'a> Observed<'a> {
    fn begin(observer: &'a dyn Observer, call: &'static str) -> Self {
        Self {
            observer,
            token: observer.begin(call),
            call,
            start: Instant::now(),
            ended: false,
        }
    }

    fn end(&mut self, error: Option<&Error>) {
        self.ended = true;
        self.observer
            .end(self.token, self.call, self.start.elapsed(), error);
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let error = Error::new(self.call, tonic::Code::Cancelled, "given up by the caller");
            self.end(Some(&error));
        }
    }
}

/// A transport failure arrives as a chain of sources whose head says only "transport error"; the cause is what helps.
fn from_status(call: &'static str, status: &tonic::Status) -> Error {
    let mut message = status.message().to_string();
    let mut source = std::error::Error::source(status);
    while let Some(inner) = source {
        let text = inner.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = inner.source();
    }
    Error::new(call, status.code(), message)
}

pub fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"))
        .unwrap_or(endpoint);
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    Err(Error::new(
        "Connect",
        tonic::Code::InvalidArgument,
        format!(
            "container runtime endpoint {endpoint:?} is not a unix socket: write it as unix:///path/to/socket"
        ),
    ))
}

fn channel(path: PathBuf, connect_timeout: Duration) -> Channel {
    // The authority is what a gRPC server on a unix socket is told; no name is looked up.
    let endpoint = Endpoint::from_static("http://localhost")
        .connect_timeout(connect_timeout)
        .http2_adaptive_window(true)
        .user_agent("kubelet")
        .unwrap_or_else(|_| Endpoint::from_static("http://localhost"));
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

macro_rules! call {
    ($self:ident . $client:ident . $method:ident, $name:literal, $request:expr) => {
        call!($self.$client.$method, $name, $request, $self.timeouts.request)
    };
    ($self:ident . $client:ident . $method:ident, $name:literal, $request:expr, $deadline:expr) => {{
        let mut client = $self.$client.clone();
        let deadline = $deadline;
        let mut request = tonic::Request::new($request);
        request.set_timeout(deadline);
        $self
            .call($name, deadline, async move { client.$method(request).await })
            .await
    }};
}

fn absent(call: &'static str) -> Error {
    Error::new(
        call,
        tonic::Code::Internal,
        "the runtime answered without a status",
    )
}

#[async_trait]
impl RuntimeService for RemoteRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        call!(
            self.runtime.version,
            "version",
            VersionRequest {
                version: "0.1.0".into()
            }
        )
    }

    async fn status(&self, verbose: bool) -> Result<StatusResponse> {
        call!(self.runtime.status, "status", StatusRequest { verbose })
    }

    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        call!(
            self.runtime.runtime_config,
            "runtime_config",
            RuntimeConfigRequest {}
        )
    }

    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        let runtime_config = Some(RuntimeConfig {
            network_config: Some(NetworkConfig {
                pod_cidr: pod_cidr.to_string(),
            }),
        });
        call!(
            self.runtime.update_runtime_config,
            "update_runtime_config",
            UpdateRuntimeConfigRequest { runtime_config }
        )
        .map(drop)
    }

    async fn container_events(&self) -> Result<ContainerEvents> {
        let mut client = self.runtime.clone();
        let open = async move { client.get_container_events(GetEventsRequest {}).await };
        let stream = self
            .call("get_container_events", self.timeouts.request, open)
            .await?;
        Ok(stream
            .map(|item| item.map_err(|status| from_status("get_container_events", &status)))
            .boxed())
    }
}

#[async_trait]
impl PodSandboxService for RemoteRuntime {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: runtime_handler.to_string(),
        };
        // Making the network may wait for another plugin: upstream gives it twice the usual time.
        let deadline = self.timeouts.request * 2;
        let answer = call!(self.runtime.run_pod_sandbox, "run_podsandbox", request, deadline)?;
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.to_string(),
        };
        call!(self.runtime.stop_pod_sandbox, "stop_podsandbox", request).map(drop)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_string(),
        };
        call!(self.runtime.remove_pod_sandbox, "remove_podsandbox", request).map(drop)
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_string(),
            verbose: false,
        };
        let answer = call!(self.runtime.pod_sandbox_status, "podsandbox_status", request)?;
        answer.status.ok_or_else(|| absent("podsandbox_status"))
    }

    async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        let answer = call!(
            self.runtime.list_pod_sandbox,
            "list_podsandbox",
            ListPodSandboxRequest { filter }
        )?;
        Ok(answer.items)
    }

    async fn port_forward(&self, request: PortForwardRequest) -> Result<String> {
        Ok(call!(self.runtime.port_forward, "port_forward", request)?.url)
    }
}

#[async_trait]
impl ContainerService for RemoteRuntime {
    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_string(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(call!(self.runtime.create_container, "create_container", request)?.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = StartContainerRequest {
            container_id: id.to_string(),
        };
        call!(self.runtime.start_container, "start_container", request).map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = StopContainerRequest {
            container_id: id.to_string(),
            timeout,
        };
        call!(
            self.runtime.stop_container,
            "stop_container",
            request,
            grace.saturating_add(STOP_MARGIN)
        )
        .map(drop)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = RemoveContainerRequest {
            container_id: id.to_string(),
        };
        call!(self.runtime.remove_container, "remove_container", request).map(drop)
    }

    async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>> {
        Ok(call!(
            self.runtime.list_containers,
            "list_containers",
            ListContainersRequest { filter }
        )?
        .containers)
    }

    async fn container_status(&self, id: &str, verbose: bool) -> Result<ContainerStatusResponse> {
        let request = ContainerStatusRequest {
            container_id: id.to_string(),
            verbose,
        };
        call!(self.runtime.container_status, "container_status", request)
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_string(),
            linux: Some(resources),
            ..Default::default()
        };
        call!(
            self.runtime.update_container_resources,
            "update_container",
            request
        )
        .map(drop)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = ReopenContainerLogRequest {
            container_id: id.to_string(),
        };
        call!(self.runtime.reopen_container_log, "reopen_container_log", request).map(drop)
    }

    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecOutput> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = ExecSyncRequest {
            container_id: id.to_string(),
            cmd: command,
            timeout: seconds,
        };
        let deadline = timeout.saturating_add(self.timeouts.request);
        let answer = call!(self.runtime.exec_sync, "exec_sync", request, deadline)?;
        Ok(ExecOutput {
            stdout: answer.stdout,
            stderr: answer.stderr,
            exit_code: answer.exit_code,
        })
    }

    async fn exec(&self, request: ExecRequest) -> Result<String> {
        Ok(call!(self.runtime.exec, "exec", request)?.url)
    }

    async fn attach(&self, request: AttachRequest) -> Result<String> {
        Ok(call!(self.runtime.attach, "attach", request)?.url)
    }

    async fn list_container_stats(
        &self,
        filter: Option<ContainerStatsFilter>,
    ) -> Result<Vec<ContainerStats>> {
        let request = ListContainerStatsRequest { filter };
        Ok(call!(self.runtime.list_container_stats, "list_container_stats", request)?.stats)
    }
}

#[async_trait]
impl ImageService for RemoteRuntime {
    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(call!(
            self.image.list_images,
            "list_images",
            ListImagesRequest { filter: None }
        )?
        .images)
    }

    async fn image_status(&self, image: ImageSpec) -> Result<Option<Image>> {
        let request = ImageStatusRequest {
            image: Some(image),
            verbose: false,
        };
        Ok(call!(self.image.image_status, "image_status", request)?.image)
    }

    async fn pull_image(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox: PodSandboxConfig,
    ) -> Result<String> {
        let request = PullImageRequest {
            image: Some(image),
            auth,
            sandbox_config: Some(sandbox),
        };
        Ok(call!(self.image.pull_image, "pull_image", request, PULL_DEADLINE)?.image_ref)
    }

    async fn remove_image(&self, image: ImageSpec) -> Result<()> {
        call!(
            self.image.remove_image,
            "remove_image",
            RemoveImageRequest { image: Some(image) }
        )
        .map(drop)
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        call!(self.image.image_fs_info, "image_fs_info", ImageFsInfoRequest {})
    }
}
