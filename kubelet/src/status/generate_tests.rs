use serde_json::json;

use super::*;
use crate::pod::PodUid;

fn pod(policy: &str, inits: serde_json::Value, names: &[&str]) -> Pod {
    let containers: Vec<_> = names.iter().map(|n| json!({"name": n, "image": "i"})).collect();
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": inits, "containers": containers}}))
    .unwrap()
}

fn runtime(containers: &[(&str, State, i32, i64)]) -> PodStatus {
    let mut status = PodStatus::empty(PodUid::new("u"), "p", "n");
    for (name, state, exit_code, created_at) in containers {
        status.containers.push(pod_status::ContainerStatus {
            id: format!("{name}-{created_at}"),
            name: name.to_string(),
            state: *state,
            created_at: *created_at,
            started_at: 1_000_000_000,
            finished_at: 2_000_000_000,
            exit_code: *exit_code,
            image: "i".into(),
            image_ref: "sha".into(),
            hash: 0,
            restart_count: u32::try_from(*created_at).unwrap(),
            reason: "Error".into(),
            message: String::new(),
            log_path: String::new(),
            user: None,
        });
    }
    status
}

fn status(
    pod: &Pod,
    runtime: &PodStatus,
    old: &ApiPodStatus,
    reasons: &Reasons,
    terminal: bool,
) -> ApiPodStatus {
    let host_ips = ["192.168.0.1".to_string()];
    let inputs = Inputs {
        pod,
        runtime,
        old,
        reasons,
        runtime_name: "containerd",
        terminal,
        host_ips: &host_ips,
    };
    let mut status = pod_status(&inputs);
    for c in status.container_statuses.iter_mut().flatten() {
        c.ready = c.state.as_ref().is_some_and(|s| s.running.is_some());
        c.started = Some(c.ready);
    }
    finish(&inputs, &mut status);
    status
}

fn of(pod: &Pod, containers: &[(&str, State, i32, i64)], terminal: bool) -> String {
    status(
        pod,
        &runtime(containers),
        &ApiPodStatus::default(),
        &Reasons::new(),
        terminal,
    )
    .phase
    .unwrap()
}

#[test]
fn the_phase_follows_containers_and_policy() {
    use State::{Exited, Running};
    let always = pod("Always", json!([]), &["a", "b"]);
    let never = pod("Never", json!([]), &["a", "b"]);
    let on_failure = pod("OnFailure", json!([]), &["a", "b"]);
    assert_eq!(of(&always, &[], false), "Pending");
    assert_eq!(of(&always, &[("a", Running, 0, 1)], false), "Pending");
    assert_eq!(
        of(&always, &[("a", Running, 0, 1), ("b", Exited, 1, 1)], false),
        "Running"
    );
    assert_eq!(
        of(&always, &[("a", Exited, 0, 1), ("b", Exited, 1, 1)], false),
        "Running"
    );
    assert_eq!(
        of(&never, &[("a", Exited, 0, 1), ("b", Exited, 0, 1)], false),
        "Succeeded"
    );
    assert_eq!(
        of(&never, &[("a", Exited, 0, 1), ("b", Exited, 1, 1)], false),
        "Failed"
    );
    assert_eq!(
        of(&on_failure, &[("a", Exited, 0, 1), ("b", Exited, 1, 1)], false),
        "Running"
    );
    assert_eq!(
        of(&on_failure, &[("a", Exited, 0, 1), ("b", Exited, 0, 1)], false),
        "Succeeded"
    );
    assert_eq!(
        of(&always, &[("a", Exited, 0, 1), ("b", Exited, 143, 1)], true),
        "Failed"
    );
    assert_eq!(
        of(&always, &[("a", Exited, 0, 1), ("b", Exited, 0, 1)], true),
        "Succeeded"
    );
}

#[test]
fn init_containers_keep_a_pod_pending_or_fail_it() {
    let inits = json!([{"name": "i", "image": "i"}]);
    let never = pod("Never", inits.clone(), &["a"]);
    assert_eq!(of(&never, &[("i", State::Running, 0, 1)], false), "Pending");
    assert_eq!(of(&never, &[("i", State::Exited, 1, 1)], false), "Failed");
    assert_eq!(
        of(
            &pod("Always", inits, &["a"]),
            &[("i", State::Exited, 1, 1)],
            false
        ),
        "Pending"
    );
}

#[test]
fn a_terminal_phase_is_never_left() {
    let p = pod("Always", json!([]), &["a"]);
    let old = ApiPodStatus {
        phase: Some("Failed".into()),
        reason: Some("Evicted".into()),
        ..Default::default()
    };
    let s = status(
        &p,
        &runtime(&[("a", State::Running, 0, 1)]),
        &old,
        &Reasons::new(),
        false,
    );
    assert_eq!(
        (s.phase.as_deref(), s.reason.as_deref()),
        (Some("Failed"), Some("Evicted"))
    );
}

#[test]
fn a_container_in_backoff_waits_and_shows_its_last_end() {
    let p = pod("Always", json!([]), &["a"]);
    let reasons = Reasons::from([(
        "a".to_string(),
        ("CrashLoopBackOff".to_string(), "back-off 10s".to_string()),
    )]);
    let s = status(
        &p,
        &runtime(&[("a", State::Exited, 7, 2), ("a", State::Exited, 6, 1)]),
        &ApiPodStatus::default(),
        &reasons,
        false,
    );
    let c = &s.container_statuses.unwrap()[0];
    assert_eq!(
        c.state
            .as_ref()
            .unwrap()
            .waiting
            .as_ref()
            .unwrap()
            .reason
            .as_deref(),
        Some("CrashLoopBackOff")
    );
    assert_eq!(
        c.last_state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        7
    );
    assert_eq!(
        (c.restart_count, c.container_id.as_deref()),
        (2, Some("containerd://a-2"))
    );
}

#[test]
fn before_anything_is_made_containers_are_creating() {
    let waiting = |inits| {
        let s = status(
            &pod("Always", inits, &["a"]),
            &runtime(&[]),
            &ApiPodStatus::default(),
            &Reasons::new(),
            false,
        );
        s.container_statuses.unwrap()[0]
            .state
            .clone()
            .unwrap()
            .waiting
            .unwrap()
            .reason
            .unwrap()
    };
    assert_eq!(waiting(json!([])), "ContainerCreating");
    assert_eq!(waiting(json!([{"name": "i"}])), "PodInitializing");
}

#[test]
fn a_running_container_that_vanished_is_told_as_lost() {
    let p = pod("Always", json!([]), &["a"]);
    let before = status(
        &p,
        &runtime(&[("a", State::Running, 0, 0)]),
        &ApiPodStatus::default(),
        &Reasons::new(),
        false,
    );
    let s = status(&p, &runtime(&[]), &before, &Reasons::new(), false);
    let c = &s.container_statuses.unwrap()[0];
    assert_eq!(
        c.last_state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        137
    );
    assert_eq!(c.restart_count, 1);
}

#[test]
fn conditions_name_what_is_not_ready() {
    let p = pod("Always", json!([]), &["a", "b"]);
    let s = status(
        &p,
        &runtime(&[("a", State::Running, 0, 1)]),
        &ApiPodStatus::default(),
        &Reasons::new(),
        false,
    );
    let find = |kind: &str| {
        s.conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == kind)
            .unwrap()
            .clone()
    };
    assert_eq!(
        find("Ready").message.unwrap(),
        "containers with unready status: [b]"
    );
    assert_eq!(find("ContainersReady").reason.unwrap(), "ContainersNotReady");
    assert_eq!(
        (find("Initialized").status, find("PodScheduled").status),
        ("True".to_string(), "True".to_string())
    );
    assert_eq!(find("PodReadyToStartContainers").status, "False");
}
