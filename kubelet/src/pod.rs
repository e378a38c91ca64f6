//! Facts about a pod that every room asks for: identity, origin, restart policy, quality of service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

pub const SOURCE_API: &str = "api";
pub const SOURCE_FILE: &str = "file";

pub const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// A pod's identity for life. A pod of the same name made again has another.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(Arc<str>);

impl PodUid {
    pub fn new(uid: &str) -> Self {
        Self(uid.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reading a pod without unwrapping at every step.
pub trait PodExt {
    fn uid(&self) -> PodUid;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    /// `namespace/name`, as logs and the API write it.
    fn key(&self) -> String;
    /// `name_namespace`: what a static pod and its mirror share.
    fn full_name(&self) -> String;
    fn spec(&self) -> &PodSpec;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn is_static(&self) -> bool;
    fn is_mirror(&self) -> bool;
    fn is_host_network(&self) -> bool;
    fn is_critical(&self) -> bool;
    fn is_deleting(&self) -> bool;
    fn phase(&self) -> &str;
    fn restart_policy(&self) -> &str;
    fn init_containers(&self) -> &[Container];
    fn container(&self, name: &str) -> Option<Container>;
    fn grace_seconds(&self) -> i64;
    /// `name_namespace(uid)`, the form of upstream's error texts.
    fn described(&self) -> String;
}

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl PodExt for Pod {
    fn uid(&self) -> PodUid {
        PodUid::new(self.metadata.uid.as_deref().unwrap_or_default())
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    fn full_name(&self) -> String {
        format!("{}_{}", self.name(), self.namespace())
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY_SPEC)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn is_static(&self) -> bool {
        self.annotation(CONFIG_SOURCE).is_some_and(|s| s != SOURCE_API)
    }

    fn is_mirror(&self) -> bool {
        self.annotation(CONFIG_MIRROR).is_some()
    }

    fn is_host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    fn is_critical(&self) -> bool {
        self.is_static()
            || self.is_mirror()
            || self
                .spec()
                .priority
                .is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
    }

    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn phase(&self) -> &str {
        self.status
            .as_ref()
            .and_then(|s| s.phase.as_deref())
            .unwrap_or_default()
    }

    fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    fn container(&self, name: &str) -> Option<Container> {
        let spec = self.spec();
        let regular = spec
            .containers
            .iter()
            .chain(self.init_containers())
            .find(|c| c.name == name)
            .cloned();
        regular.or_else(|| {
            let ephemeral = spec.ephemeral_containers.as_deref().unwrap_or_default();
            ephemeral.iter().find(|c| c.name == name).map(as_container)
        })
    }

    fn grace_seconds(&self) -> i64 {
        let deletion = self.metadata.deletion_grace_period_seconds;
        deletion
            .or(self.spec().termination_grace_period_seconds)
            .unwrap_or(DEFAULT_GRACE_SECONDS)
    }

    fn described(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }
}

/// An ephemeral container seen as a container: the same fields but for its target.
pub fn as_container(e: &k8s_openapi::api::core::v1::EphemeralContainer) -> Container {
    let e = e.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        name: e.name,
        resources: e.resources,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..Default::default()
    }
}

/// A sidecar: an init container that is kept running.
pub fn is_restartable_init(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether an exit with this code is followed by a restart, by the container's own rules, its policy, or the pod's.
pub fn restarts_after(container: &Container, is_init: bool, pod_policy: &str, exit_code: i32) -> bool {
    if container.restart_policy.is_some() {
        for rule in container.restart_policy_rules.iter().flatten() {
            if rule.action == "Restart"
                && rule
                    .exit_codes
                    .as_ref()
                    .is_some_and(|e| exit_code_matches(e, exit_code))
            {
                return true;
            }
        }
    }
    match container.restart_policy.as_deref().unwrap_or(pod_policy) {
        "Never" => false,
        // An init container that succeeded is done, whatever the pod's policy says of its main containers.
        "Always" => exit_code != 0 || !is_init || container.restart_policy.is_some(),
        _ => exit_code != 0,
    }
}

fn exit_code_matches(
    rule: &k8s_openapi::api::core::v1::ContainerRestartRuleOnExitCodes,
    exit_code: i32,
) -> bool {
    let listed = rule.values.as_deref().unwrap_or_default().contains(&exit_code);
    match rule.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

pub fn is_terminal_phase(phase: &str) -> bool {
    phase == "Succeeded" || phase == "Failed"
}

pub fn status_of<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|s| s.name == name)
}

pub fn condition_is_true(status: &PodStatus, kind: &str) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == kind && c.status == "True")
}

/// Whole seconds: the API's times carry no fraction, and comparing with one would always find a difference.
pub fn time_from_nanos(nanos: i64) -> Time {
    let seconds = nanos.div_euclid(1_000_000_000);
    Time(jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

pub fn now() -> Time {
    let seconds = jiff::Timestamp::now().as_second();
    Time(jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

pub type Labels = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ContainerRestartRule, ContainerRestartRuleOnExitCodes};

    #[test]
    fn a_restart_rule_beats_the_policy() {
        let rule = ContainerRestartRule {
            action: "Restart".into(),
            exit_codes: Some(ContainerRestartRuleOnExitCodes {
                operator: "In".into(),
                values: Some(vec![42]),
            }),
        };
        let container = Container {
            restart_policy: Some("Never".into()),
            restart_policy_rules: Some(vec![rule]),
            ..Default::default()
        };
        assert!(restarts_after(&container, false, "Never", 42));
        assert!(!restarts_after(&container, false, "Always", 1));
    }

    #[test]
    fn the_pods_policy_decides_otherwise() {
        let container = Container::default();
        assert!(restarts_after(&container, false, "Always", 0));
        assert!(!restarts_after(&container, false, "OnFailure", 0));
        assert!(restarts_after(&container, false, "OnFailure", 1));
        assert!(!restarts_after(&container, false, "Never", 1));
        assert!(
            !restarts_after(&container, true, "Always", 0),
            "an init container that succeeded is done"
        );
    }
}
