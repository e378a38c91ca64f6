//! A container runtime in memory. Containers run until a test makes them exit; every call is recorded; any call can be made to fail.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::async_trait;

use crate::services::*;
use crate::v1::*;
use crate::{Error, Result};

/// Events kept for a reader that is behind.
const EVENT_BACKLOG: usize = 1024;

/// Decides what `exec_sync` answers: container id and command to exit code and stdout.
pub type ExecHandler = Arc<dyn Fn(&str, &[String]) -> (i32, String) + Send + Sync>;

#[derive(Clone)]
pub struct FakeRuntime {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

#[derive(Default)]
struct Inner {
    sandboxes: BTreeMap<String, (PodSandboxStatus, PodSandboxConfig)>,
    containers: BTreeMap<String, FakeContainer>,
    images: HashMap<String, Image>,
    pullable: HashMap<String, u64>,
    calls: Vec<String>,
    failures: HashMap<&'static str, VecDeque<Error>>,
    exec: Option<ExecHandler>,
    /// What a container does with SIGTERM: leave with this code. `None` waits for SIGKILL (137).
    term_exit: Option<i32>,
    announce: bool,
    next: u64,
}

pub struct FakeContainer {
    pub sandbox: String,
    pub config: ContainerConfig,
    pub status: ContainerStatus,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeRuntime {
    pub fn new() -> Self {
        let inner = Inner {
            announce: true,
            term_exit: Some(0),
            ..Inner::default()
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            events: broadcast::channel(EVENT_BACKLOG).0,
        }
    }

    /// A runtime as old as containerd 1.6: `GetContainerEvents` and `RuntimeConfig` are unimplemented.
    pub fn without_events(self) -> Self {
        self.inner.lock().announce = false;
        self
    }

    /// An image that is there already.
    pub fn with_image(self, name: &str) -> Self {
        self.inner
            .lock()
            .images
            .insert(name.to_string(), image(name, 1 << 20));
        self
    }

    /// An image that a pull finds.
    pub fn with_pullable(self, name: &str, bytes: u64) -> Self {
        self.inner.lock().pullable.insert(name.to_string(), bytes);
        self
    }

    pub fn ignore_sigterm(&self) {
        self.inner.lock().term_exit = None;
    }

    pub fn on_exec(&self, handler: ExecHandler) {
        self.inner.lock().exec = Some(handler);
    }

    pub fn fail_next(&self, call: &'static str, code: tonic::Code, message: &str) {
        let error = Error::new(call, code, message);
        self.inner
            .lock()
            .failures
            .entry(call)
            .or_default()
            .push_back(error);
    }

    pub fn calls(&self) -> Vec<String> {
        self.inner.lock().calls.clone()
    }

    pub fn count(&self, call: &str) -> usize {
        self.inner
            .lock()
            .calls
            .iter()
            .filter(|c| c.split(' ').next() == Some(call))
            .count()
    }

    /// The id of the newest container of that name.
    pub fn container(&self, name: &str) -> Option<String> {
        let inner = self.inner.lock();
        inner
            .containers
            .values()
            .filter(|c| named(c, name))
            .max_by_key(|c| c.status.created_at)
            .map(|c| c.status.id.clone())
    }

    pub fn config(&self, name: &str) -> Option<ContainerConfig> {
        let id = self.container(name)?;
        self.inner.lock().containers.get(&id).map(|c| c.config.clone())
    }

    pub fn sandbox_configs(&self) -> Vec<PodSandboxConfig> {
        self.inner
            .lock()
            .sandboxes
            .values()
            .map(|(_, c)| c.clone())
            .collect()
    }

    pub fn running(&self) -> Vec<String> {
        let inner = self.inner.lock();
        inner
            .containers
            .values()
            .filter(|c| c.status.state() == ContainerState::ContainerRunning)
            .filter_map(|c| c.status.metadata.as_ref().map(|m| m.name.clone()))
            .collect()
    }

    /// The newest running container of that name leaves with `code`.
    pub fn exit(&self, name: &str, code: i32) {
        let id = {
            let inner = self.inner.lock();
            let running =
                |c: &&FakeContainer| c.status.state() == ContainerState::ContainerRunning && named(c, name);
            inner
                .containers
                .values()
                .filter(running)
                .max_by_key(|c| c.status.created_at)
                .map(|c| c.status.id.clone())
        };
        if let Some(id) = id {
            self.finish(&id, code);
        }
    }

    /// The sandbox of every pod dies, as after a reboot.
    pub fn lose_sandboxes(&self) {
        let ids: Vec<String> = self.inner.lock().sandboxes.keys().cloned().collect();
        for id in ids {
            self.stop_all_in(&id);
        }
    }

    fn finish(&self, id: &str, code: i32) {
        let mut inner = self.inner.lock();
        let now = inner.tick();
        let Some(container) = inner.containers.get_mut(id) else {
            return;
        };
        if container.status.state() != ContainerState::ContainerRunning {
            return;
        }
        container.status.set_state(ContainerState::ContainerExited);
        container.status.exit_code = code;
        container.status.finished_at = now;
        container.status.reason = if code == 0 { "Completed" } else { "Error" }.into();
        drop(inner);
        self.announce(id, ContainerEventType::ContainerStoppedEvent);
    }

    fn stop_all_in(&self, sandbox: &str) {
        let ids: Vec<String> = {
            let mut inner = self.inner.lock();
            if let Some((status, _)) = inner.sandboxes.get_mut(sandbox) {
                status.set_state(PodSandboxState::SandboxNotready);
            }
            inner
                .containers
                .values()
                .filter(|c| c.sandbox == sandbox)
                .map(|c| c.status.id.clone())
                .collect()
        };
        for id in ids {
            self.finish(&id, 137);
        }
        self.announce(sandbox, ContainerEventType::ContainerStoppedEvent);
    }

    fn announce(&self, id: &str, kind: ContainerEventType) {
        let inner = self.inner.lock();
        if !inner.announce {
            return;
        }
        let sandbox = inner.containers.get(id).map_or(id, |c| c.sandbox.as_str());
        let pod_sandbox_status = inner.sandboxes.get(sandbox).map(|(s, _)| s.clone());
        let containers_statuses = inner
            .containers
            .values()
            .filter(|c| c.sandbox == sandbox)
            .map(|c| c.status.clone())
            .collect();
        let event = ContainerEventResponse {
            container_id: id.to_string(),
            container_event_type: kind as i32,
            created_at: now_nanos(),
            pod_sandbox_status,
            containers_statuses,
        };
        // Nobody listening is fine: the relist will find the change.
        let _ = self.events.send(event);
    }

    fn enter(&self, call: &'static str, detail: &str) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.calls.push(if detail.is_empty() {
            call.to_string()
        } else {
            format!("{call} {detail}")
        });
        match inner.failures.get_mut(call).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// Strictly increasing, so that the order of two things made in one test is never a tie.
    fn tick(&mut self) -> i64 {
        self.next += 1;
        now_nanos() + i64::try_from(self.next).unwrap_or(0)
    }

    fn id(&mut self) -> String {
        self.next += 1;
        format!("{:064x}", self.next)
    }
}

fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn named(container: &FakeContainer, name: &str) -> bool {
    container.status.metadata.as_ref().is_some_and(|m| m.name == name)
}

fn image(name: &str, size: u64) -> Image {
    Image {
        id: format!("sha256:{name}"),
        repo_tags: vec![name.to_string()],
        repo_digests: vec![format!("{name}@sha256:0")],
        size,
        ..Default::default()
    }
}

fn not_found(call: &'static str, id: &str) -> Error {
    Error::new(call, tonic::Code::NotFound, format!("{id:?}: not found"))
}

fn selected(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        self.enter("version", "")?;
        Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.0.0".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self, _verbose: bool) -> Result<StatusResponse> {
        self.enter("status", "")?;
        let condition = |kind: &str| RuntimeCondition {
            r#type: kind.into(),
            status: true,
            ..Default::default()
        };
        let status = RuntimeStatus {
            conditions: vec![condition("RuntimeReady"), condition("NetworkReady")],
        };
        Ok(StatusResponse {
            status: Some(status),
            ..Default::default()
        })
    }

    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        self.enter("runtime_config", "")?;
        if !self.inner.lock().announce {
            return Err(Error::new(
                "runtime_config",
                tonic::Code::Unimplemented,
                "unknown method RuntimeConfig",
            ));
        }
        let linux = LinuxRuntimeConfiguration {
            cgroup_driver: CgroupDriver::Cgroupfs as i32,
        };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        self.enter("update_runtime_config", pod_cidr)
    }

    async fn container_events(&self) -> Result<ContainerEvents> {
        self.enter("get_container_events", "")?;
        if !self.inner.lock().announce {
            return Err(Error::new(
                "get_container_events",
                tonic::Code::Unimplemented,
                "unknown method",
            ));
        }
        let behind = |_| Error::new("get_container_events", tonic::Code::DataLoss, "reader too slow");
        Ok(BroadcastStream::new(self.events.subscribe())
            .map(move |e| e.map_err(behind))
            .boxed())
    }
}

#[async_trait]
impl PodSandboxService for FakeRuntime {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, _handler: &str) -> Result<String> {
        let name = config
            .metadata
            .as_ref()
            .map(|m| m.name.clone())
            .unwrap_or_default();
        self.enter("run_podsandbox", &name)?;
        let mut inner = self.inner.lock();
        let id = inner.id();
        let created_at = inner.tick();
        let options = config
            .linux
            .as_ref()
            .and_then(|l| l.security_context.as_ref()?.namespace_options.clone());
        let host_network = options
            .as_ref()
            .is_some_and(|o| o.network == NamespaceMode::Node as i32);
        let ip = if host_network {
            String::new()
        } else {
            format!("10.0.0.{}", 1 + inner.next % 250)
        };
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: PodSandboxState::SandboxReady as i32,
            created_at,
            network: Some(PodSandboxNetworkStatus {
                ip,
                additional_ips: vec![],
            }),
            linux: Some(LinuxPodSandboxStatus {
                namespaces: Some(Namespace { options }),
            }),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: String::new(),
        };
        inner.sandboxes.insert(id.clone(), (status, config));
        drop(inner);
        self.announce(&id, ContainerEventType::ContainerStartedEvent);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.enter("stop_podsandbox", id)?;
        self.stop_all_in(id);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.enter("remove_podsandbox", id)?;
        let mut inner = self.inner.lock();
        inner.sandboxes.remove(id);
        inner.containers.retain(|_, c| c.sandbox != id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        self.enter("podsandbox_status", id)?;
        let inner = self.inner.lock();
        inner
            .sandboxes
            .get(id)
            .map(|(s, _)| s.clone())
            .ok_or_else(|| not_found("podsandbox_status", id))
    }

    async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        self.enter("list_podsandbox", "")?;
        let filter = filter.unwrap_or_default();
        let inner = self.inner.lock();
        let keep = |s: &&PodSandboxStatus| {
            (filter.id.is_empty() || filter.id == s.id)
                && filter.state.as_ref().is_none_or(|f| f.state == s.state)
                && selected(&s.labels, &filter.label_selector)
        };
        let list = inner
            .sandboxes
            .values()
            .map(|(s, _)| s)
            .filter(keep)
            .map(|s| PodSandbox {
                id: s.id.clone(),
                metadata: s.metadata.clone(),
                state: s.state,
                created_at: s.created_at,
                labels: s.labels.clone(),
                annotations: s.annotations.clone(),
                runtime_handler: String::new(),
            });
        Ok(list.collect())
    }

    async fn port_forward(&self, request: PortForwardRequest) -> Result<String> {
        self.enter("port_forward", &request.pod_sandbox_id)?;
        Ok("http://127.0.0.1:1/portforward/token".into())
    }
}

#[async_trait]
impl ContainerService for FakeRuntime {
    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        _sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let name = config
            .metadata
            .as_ref()
            .map(|m| m.name.clone())
            .unwrap_or_default();
        self.enter("create_container", &name)?;
        let mut inner = self.inner.lock();
        if !inner.sandboxes.contains_key(sandbox) {
            return Err(not_found("create_container", sandbox));
        }
        let id = inner.id();
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::ContainerCreated as i32,
            created_at: inner.tick(),
            image: config.image.clone(),
            image_ref: config.image.as_ref().map(|i| i.image.clone()).unwrap_or_default(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: config.log_path.clone(),
            ..Default::default()
        };
        inner.containers.insert(
            id.clone(),
            FakeContainer {
                sandbox: sandbox.to_string(),
                config,
                status,
            },
        );
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.enter("start_container", id)?;
        let mut inner = self.inner.lock();
        let now = inner.tick();
        let container = inner
            .containers
            .get_mut(id)
            .ok_or_else(|| not_found("start_container", id))?;
        container.status.set_state(ContainerState::ContainerRunning);
        container.status.started_at = now;
        drop(inner);
        self.announce(id, ContainerEventType::ContainerStartedEvent);
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        self.enter("stop_container", &format!("{id} {}", grace.as_secs()))?;
        let term_exit = self.inner.lock().term_exit;
        if term_exit.is_none() {
            tokio::time::sleep(grace).await;
        }
        self.finish(id, term_exit.unwrap_or(137));
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.enter("remove_container", id)?;
        self.inner.lock().containers.remove(id);
        Ok(())
    }

    async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>> {
        self.enter("list_containers", "")?;
        let filter = filter.unwrap_or_default();
        let inner = self.inner.lock();
        let keep = |c: &&FakeContainer| {
            (filter.id.is_empty() || filter.id == c.status.id)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == c.sandbox)
                && filter.state.as_ref().is_none_or(|f| f.state == c.status.state)
                && selected(&c.status.labels, &filter.label_selector)
        };
        let list = inner.containers.values().filter(keep).map(|c| Container {
            id: c.status.id.clone(),
            pod_sandbox_id: c.sandbox.clone(),
            metadata: c.status.metadata.clone(),
            image: c.status.image.clone(),
            image_ref: c.status.image_ref.clone(),
            state: c.status.state,
            created_at: c.status.created_at,
            labels: c.status.labels.clone(),
            annotations: c.status.annotations.clone(),
            image_id: String::new(),
        });
        Ok(list.collect())
    }

    async fn container_status(&self, id: &str, _verbose: bool) -> Result<ContainerStatusResponse> {
        self.enter("container_status", id)?;
        let inner = self.inner.lock();
        let container = inner
            .containers
            .get(id)
            .ok_or_else(|| not_found("container_status", id))?;
        Ok(ContainerStatusResponse {
            status: Some(container.status.clone()),
            info: HashMap::new(),
        })
    }

    async fn update_container_resources(&self, id: &str, _resources: LinuxContainerResources) -> Result<()> {
        self.enter("update_container", id)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.enter("reopen_container_log", id)
    }

    async fn exec_sync(&self, id: &str, command: Vec<String>, _timeout: Duration) -> Result<ExecOutput> {
        self.enter("exec_sync", id)?;
        let handler = self.inner.lock().exec.clone();
        let (exit_code, stdout) = handler.map_or((0, String::new()), |h| h(id, &command));
        Ok(ExecOutput {
            stdout: stdout.into_bytes(),
            stderr: Vec::new(),
            exit_code,
        })
    }

    async fn exec(&self, request: ExecRequest) -> Result<String> {
        self.enter("exec", &request.container_id)?;
        Ok("http://127.0.0.1:1/exec/token".into())
    }

    async fn attach(&self, request: AttachRequest) -> Result<String> {
        self.enter("attach", &request.container_id)?;
        Ok("http://127.0.0.1:1/attach/token".into())
    }

    async fn list_container_stats(
        &self,
        _filter: Option<ContainerStatsFilter>,
    ) -> Result<Vec<ContainerStats>> {
        self.enter("list_container_stats", "")?;
        Ok(Vec::new())
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self) -> Result<Vec<Image>> {
        self.enter("list_images", "")?;
        Ok(self.inner.lock().images.values().cloned().collect())
    }

    async fn image_status(&self, image: ImageSpec) -> Result<Option<Image>> {
        self.enter("image_status", &image.image)?;
        let inner = self.inner.lock();
        Ok(inner
            .images
            .get(&image.image)
            .or_else(|| inner.images.values().find(|i| i.id == image.image))
            .cloned())
    }

    async fn pull_image(
        &self,
        spec: ImageSpec,
        _auth: Option<AuthConfig>,
        _sandbox: PodSandboxConfig,
    ) -> Result<String> {
        self.enter("pull_image", &spec.image)?;
        let mut inner = self.inner.lock();
        let Some(size) = inner.pullable.get(&spec.image).copied() else {
            let text = format!("failed to pull and unpack image {:?}: not found", spec.image);
            return Err(Error::new("pull_image", tonic::Code::NotFound, text));
        };
        let pulled = image(&spec.image, size);
        let id = pulled.id.clone();
        inner.images.insert(spec.image, pulled);
        Ok(id)
    }

    async fn remove_image(&self, image: ImageSpec) -> Result<()> {
        self.enter("remove_image", &image.image)?;
        self.inner
            .lock()
            .images
            .retain(|name, i| *name != image.image && i.id != image.image);
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        self.enter("image_fs_info", "")?;
        Ok(ImageFsInfoResponse::default())
    }
}
