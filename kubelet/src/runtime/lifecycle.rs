//! Hooks: a command in the container, an HTTP request, or a pause.

use std::sync::Arc;
use std::time::Duration;

use cri::Runtime;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};

use crate::probes::attempt::{Attempt, Prober, Target};

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error(
        "Exec lifecycle hook ({command:?}) for Container {container:?} failed - error: command '{line}' exited with {exit_code}: {output}, message: {output:?}"
    )]
    Exit {
        command: Vec<String>,
        line: String,
        container: String,
        exit_code: i32,
        output: String,
    },
    #[error(transparent)]
    Runtime(#[from] cri::Error),
    #[error("Http lifecycle hook for Container {container:?} failed - error: {error}")]
    Http { container: String, error: String },
    #[error("invalid handler")]
    Invalid,
}

pub struct HookRunner {
    runtime: Arc<dyn Runtime>,
    prober: Prober,
}

impl HookRunner {
    pub fn new(runtime: Arc<dyn Runtime>, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self {
            prober: Prober::new(runtime.clone(), tls),
            runtime,
        }
    }

    pub async fn run(
        &self,
        id: &str,
        pod: &Pod,
        container: &Container,
        pod_ip: Option<&str>,
        handler: &LifecycleHandler,
    ) -> Result<(), HookError> {
        if let Some(exec) = &handler.exec {
            return self
                .exec(id, container, exec.command.clone().unwrap_or_default())
                .await;
        }
        if let Some(http) = &handler.http_get {
            return self.http(id, pod, container, pod_ip, http).await;
        }
        if let Some(sleep) = &handler.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            return Ok(());
        }
        Err(HookError::Invalid)
    }

    async fn exec(&self, id: &str, container: &Container, command: Vec<String>) -> Result<(), HookError> {
        let output = self
            .runtime
            .exec_sync(id, command.clone(), Duration::ZERO)
            .await?;
        if output.exit_code == 0 {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        Err(HookError::Exit {
            line: command.join(" "),
            command,
            container: container.name.clone(),
            exit_code: output.exit_code,
            output: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    async fn http(
        &self,
        id: &str,
        pod: &Pod,
        container: &Container,
        pod_ip: Option<&str>,
        action: &HTTPGetAction,
    ) -> Result<(), HookError> {
        let target = Target {
            pod,
            container,
            container_id: id,
            pod_ip,
        };
        match self.prober.http_get(action, &target).await {
            Attempt::Success => Ok(()),
            Attempt::Failure(error) | Attempt::Errored(error) => Err(HookError::Http {
                container: container.name.clone(),
                error,
            }),
        }
    }
}
