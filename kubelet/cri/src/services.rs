//! Four small interfaces, and [`Runtime`], which is all of them.

use std::time::Duration;

use futures_util::stream::BoxStream;
use tonic::async_trait;

use crate::Result;
use crate::v1::*;

pub type ContainerEvents = BoxStream<'static, Result<ContainerEventResponse>>;

pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// The runtime as a whole: who it is, how it is, what it announces.
#[async_trait]
pub trait RuntimeService: Send + Sync {
    async fn version(&self) -> Result<VersionResponse>;
    async fn status(&self, verbose: bool) -> Result<StatusResponse>;
    async fn runtime_config(&self) -> Result<RuntimeConfigResponse>;
    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()>;
    /// `Unimplemented` from a runtime without events.
    async fn container_events(&self) -> Result<ContainerEvents>;
}

#[async_trait]
pub trait PodSandboxService: Send + Sync {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String>;
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus>;
    async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>>;
    async fn port_forward(&self, request: PortForwardRequest) -> Result<String>;
}

#[async_trait]
pub trait ContainerService: Send + Sync {
    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>>;
    async fn container_status(&self, id: &str, verbose: bool) -> Result<ContainerStatusResponse>;
    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()>;
    async fn reopen_container_log(&self, id: &str) -> Result<()>;
    /// A zero `timeout` means none of the container's own; the call still has its deadline.
    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecOutput>;
    async fn exec(&self, request: ExecRequest) -> Result<String>;
    async fn attach(&self, request: AttachRequest) -> Result<String>;
    async fn list_container_stats(&self, filter: Option<ContainerStatsFilter>)
    -> Result<Vec<ContainerStats>>;
}

#[async_trait]
pub trait ImageService: Send + Sync {
    async fn list_images(&self) -> Result<Vec<Image>>;
    async fn image_status(&self, image: ImageSpec) -> Result<Option<Image>>;
    async fn pull_image(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox: PodSandboxConfig,
    ) -> Result<String>;
    async fn remove_image(&self, image: ImageSpec) -> Result<()>;
    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse>;
}

pub trait Runtime: RuntimeService + PodSandboxService + ContainerService + ImageService {}

impl<T: RuntimeService + PodSandboxService + ContainerService + ImageService> Runtime for T {}
