//! What the API server would have filled in, for pods that never pass through it.

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe, Volume};

const TERMINATION_LOG: &str = "/dev/termination-log";

pub fn apply(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.scheduler_name
        .get_or_insert_with(|| "default-scheduler".into());
    spec.security_context.get_or_insert_with(Default::default);
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        apply_to_container(container, host_network);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        apply_to_volume(volume);
    }
}

fn apply_to_container(container: &mut Container, host_network: bool) {
    let image = container.image.clone().unwrap_or_default();
    container
        .image_pull_policy
        .get_or_insert_with(|| pull_policy(&image).into());
    container
        .termination_message_path
        .get_or_insert_with(|| TERMINATION_LOG.into());
    container
        .termination_message_policy
        .get_or_insert_with(|| "File".into());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        if host_network {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    if let Some(resources) = &mut container.resources
        && let Some(limits) = resources.limits.clone()
    {
        let requests = resources.requests.get_or_insert_with(Default::default);
        for (name, quantity) in limits {
            requests.entry(name).or_insert(quantity);
        }
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(apply_to_probe);
}

/// `latest` may be another image tomorrow; a tag or digest is what it was.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    let moves = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
    if moves { "Always" } else { "IfNotPresent" }
}

fn apply_to_probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    if let Some(http) = &mut probe.http_get {
        http.path.get_or_insert_with(|| "/".into());
        http.scheme.get_or_insert_with(|| "HTTP".into());
    }
}

fn apply_to_volume(volume: &mut Volume) {
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(0o644);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(0o644);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_with(String::new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_the_pull_policy() {
        for (image, policy) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("h:5000/a", "Always"),
            ("a:1", "IfNotPresent"),
            ("a@sha256:0", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
