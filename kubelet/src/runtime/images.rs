//! Makes sure that a container's image is there: policy, credentials, back-off, a bound on parallel pulls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::{Runtime, v1};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::manager::StartError;
use super::security::ImageUser;
use crate::backoff::{Backoff, unix_nanos};
use crate::events::{Recorder, Severity};
use crate::pod::PodExt;

const INITIAL_BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// `maxParallelImagePulls` unset: enough to overlap waiting, few enough not to starve the disk.
const DEFAULT_PARALLEL_PULLS: usize = 10;

pub struct ImagePuller {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    state: Mutex<State>,
    slots: Semaphore,
}

struct State {
    backoff: Backoff,
    /// What the last failure of a key said, for the text of its back-off.
    errors: HashMap<String, String>,
}

pub struct PresentImage {
    /// What the runtime calls it.
    pub reference: String,
    pub user: ImageUser,
}

impl ImagePuller {
    pub fn new(
        runtime: Arc<dyn Runtime>,
        recorder: Recorder,
        serialize: bool,
        parallel: Option<usize>,
    ) -> Self {
        let slots = if serialize {
            1
        } else {
            parallel.unwrap_or(DEFAULT_PARALLEL_PULLS).max(1)
        };
        let state = State {
            backoff: Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF),
            errors: HashMap::new(),
        };
        Self {
            runtime,
            recorder,
            state: Mutex::new(state),
            slots: Semaphore::new(slots),
        }
    }

    pub async fn ensure_image(
        &self,
        pod: &Pod,
        container: &Container,
        secrets: &[Arc<Secret>],
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<PresentImage, StartError> {
        let wanted = container.image.as_deref().unwrap_or_default();
        let image = with_default_tag(wanted).map_err(|e| {
            let message = format!("Failed to apply default image tag {wanted:?}: {e}");
            self.event(pod, container, Severity::Warning, "InspectFailed", &message);
            StartError::new("InvalidImageName", message)
        })?;
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        if policy != "Always" {
            let present = self.inspect(&image).await.map_err(|e| {
                let message = format!("Failed to inspect image {wanted:?}: {e}");
                self.event(pod, container, Severity::Warning, "InspectFailed", &message);
                StartError::new("ImageInspectError", message)
            })?;
            if let Some(present) = present {
                let message = format!("Container image {wanted:?} already present on machine");
                self.event(pod, container, Severity::Normal, "Pulled", &message);
                return Ok(present);
            }
        }
        if policy == "Never" {
            let message = format!("Container image {wanted:?} is not present with pull policy of Never");
            self.event(pod, container, Severity::Warning, "ErrImageNeverPull", &message);
            return Err(StartError::new("ErrImageNeverPull", message));
        }
        self.pull(pod, container, wanted, &image, secrets, sandbox).await
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        wanted: &str,
        image: &str,
        secrets: &[Arc<Secret>],
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<PresentImage, StartError> {
        let key = format!("{}_{wanted}", pod.uid());
        self.check_backoff(pod, container, wanted, &key)?;
        self.event(
            pod,
            container,
            Severity::Normal,
            "Pulling",
            &format!("Pulling image {wanted:?}"),
        );
        let queued = Instant::now();
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        let begun = Instant::now();
        match self.pull_with_credentials(image, secrets, sandbox).await {
            Ok(reference) => {
                let present = self.inspect(image).await.ok().flatten();
                let size = self.size_of(&reference).await;
                let message = format!(
                    "Successfully pulled image {wanted:?} in {} ({} including waiting). Image size: {size} bytes.",
                    go_duration(begun.elapsed()),
                    go_duration(queued.elapsed())
                );
                self.event(pod, container, Severity::Normal, "Pulled", &message);
                Ok(present.unwrap_or(PresentImage {
                    reference,
                    user: ImageUser {
                        uid: Some(0),
                        name: String::new(),
                    },
                }))
            }
            Err(error) => {
                let message = format!("Failed to pull image {wanted:?}: {error}");
                self.event(pod, container, Severity::Warning, "Failed", &message);
                let now = unix_nanos();
                let mut state = self.state.lock();
                state.backoff.next(&key, now, now);
                state.errors.insert(key.clone(), format!("ErrImagePull: {error}"));
                let mut start_error = StartError::new("ErrImagePull", error.to_string());
                start_error.retry_at = state.backoff.until(&key);
                Err(start_error)
            }
        }
    }

    fn check_backoff(
        &self,
        pod: &Pod,
        container: &Container,
        wanted: &str,
        key: &str,
    ) -> Result<(), StartError> {
        let now = unix_nanos();
        let mut state = self.state.lock();
        if state.backoff.wait(key, now).is_none() {
            state.errors.remove(key);
            state.backoff.collect(now);
            return Ok(());
        }
        let mut message = format!("Back-off pulling image {wanted:?}");
        self.event(pod, container, Severity::Normal, "BackOff", &message);
        if let Some(last) = state.errors.get(key) {
            message = format!("{message}: {last}");
        }
        let mut error = StartError::new("ImagePullBackOff", message);
        error.retry_at = state.backoff.until(key);
        Err(error)
    }

    /// Each credential in turn; without any, anonymously.
    async fn pull_with_credentials(
        &self,
        image: &str,
        secrets: &[Arc<Secret>],
        sandbox: &v1::PodSandboxConfig,
    ) -> cri::Result<String> {
        let spec = v1::ImageSpec {
            image: image.to_string(),
            ..Default::default()
        };
        let mut credentials: Vec<Option<v1::AuthConfig>> = crate::credentials::lookup(image, secrets)
            .into_iter()
            .map(Some)
            .collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut last = None;
        for auth in credentials {
            match self.runtime.pull_image(spec.clone(), auth, sandbox.clone()).await {
                Ok(reference) => return Ok(reference),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            cri::Error::new("pull_image", tonic::Code::Internal, "no credential was tried")
        }))
    }

    pub async fn inspect(&self, image: &str) -> cri::Result<Option<PresentImage>> {
        let spec = v1::ImageSpec {
            image: image.to_string(),
            ..Default::default()
        };
        let found = self.runtime.image_status(spec).await?;
        Ok(found.map(|i| {
            let uid = i.uid.as_ref().map(|u| u.value);
            // An image that names no user runs as root.
            let uid = uid.or(i.username.is_empty().then_some(0));
            PresentImage {
                reference: i.id,
                user: ImageUser {
                    uid,
                    name: i.username,
                },
            }
        }))
    }

    async fn size_of(&self, reference: &str) -> u64 {
        let spec = v1::ImageSpec {
            image: reference.to_string(),
            ..Default::default()
        };
        self.runtime
            .image_status(spec)
            .await
            .ok()
            .flatten()
            .map_or(0, |i| i.size)
    }

    fn event(&self, pod: &Pod, container: &Container, severity: Severity, reason: &str, message: &str) {
        self.recorder
            .container(pod, &container.name, severity, reason, message);
    }
}

/// To the millisecond, in Go's form: `1.234s`, `45ms`.
fn go_duration(d: Duration) -> String {
    let ms = d.as_millis();
    if ms < 1000 {
        format!("{ms}ms")
    } else {
        format!("{}s", (ms as f64) / 1000.0)
    }
}

/// An image without tag or digest is its `latest`.
pub fn with_default_tag(image: &str) -> Result<String, &'static str> {
    if image.is_empty() || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("invalid reference format");
    }
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    let path = name.split_once('/').map_or(name, |(_, rest)| rest);
    if path.chars().any(|c| c.is_ascii_uppercase()) && !path.contains(':') {
        return Err("invalid reference format: repository name must be lowercase");
    }
    if image.contains('@') || last.contains(':') {
        return Ok(image.to_string());
    }
    Ok(format!("{image}:latest"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::fake::FakeRuntime;
    use serde_json::json;

    async fn ensure(
        runtime: &FakeRuntime,
        puller: &ImagePuller,
        policy: &str,
        image: &str,
    ) -> Result<String, StartError> {
        let _ = runtime;
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": image, "imagePullPolicy": policy}]}}))
        .unwrap();
        let sandbox = v1::PodSandboxConfig::default();
        puller
            .ensure_image(&pod, &pod.spec().containers[0], &[], &sandbox)
            .await
            .map(|i| i.reference)
    }

    fn puller(runtime: &FakeRuntime) -> ImagePuller {
        ImagePuller::new(Arc::new(runtime.clone()), Recorder::new(None, "n"), false, None)
    }

    #[test]
    fn an_image_without_tag_is_latest() {
        assert_eq!(with_default_tag("busybox").unwrap(), "busybox:latest");
        assert_eq!(
            with_default_tag("localhost:5000/a/b").unwrap(),
            "localhost:5000/a/b:latest"
        );
        assert_eq!(with_default_tag("a:1").unwrap(), "a:1");
        assert_eq!(with_default_tag("a@sha256:0").unwrap(), "a@sha256:0");
        assert!(with_default_tag("").is_err() && with_default_tag("a b").is_err());
    }

    #[tokio::test]
    async fn the_policy_decides_whether_to_pull() {
        let runtime = FakeRuntime::new()
            .with_image("here:1")
            .with_pullable("here:1", 1)
            .with_pullable("there:1", 1);
        let p = puller(&runtime);
        ensure(&runtime, &p, "IfNotPresent", "here:1").await.unwrap();
        ensure(&runtime, &p, "Never", "here:1").await.unwrap();
        assert_eq!(runtime.count("pull_image"), 0);
        ensure(&runtime, &p, "Always", "here:1").await.unwrap();
        ensure(&runtime, &p, "IfNotPresent", "there:1").await.unwrap();
        assert_eq!(runtime.count("pull_image"), 2);
        let error = ensure(&runtime, &p, "Never", "absent:1").await.unwrap_err();
        assert_eq!(error.reason, "ErrImageNeverPull");
    }

    #[tokio::test]
    async fn a_failed_pull_backs_off_and_says_what_failed() {
        let runtime = FakeRuntime::new();
        let p = puller(&runtime);
        let first = ensure(&runtime, &p, "IfNotPresent", "absent:1")
            .await
            .unwrap_err();
        assert_eq!(first.reason, "ErrImagePull");
        let second = ensure(&runtime, &p, "IfNotPresent", "absent:1")
            .await
            .unwrap_err();
        assert_eq!(second.reason, "ImagePullBackOff");
        assert!(
            second
                .message
                .starts_with("Back-off pulling image \"absent:1\": ErrImagePull: rpc error"),
            "{}",
            second.message
        );
        assert!(second.retry_at.is_some());
        assert_eq!(runtime.count("pull_image"), 1);
    }
}
