use std::collections::HashMap;

use serde_json::json;

use super::*;
use crate::pod::PodUid;
use cri::v1;

#[derive(Default)]
struct Said {
    liveness: HashMap<String, Verdict>,
    startup: HashMap<String, Verdict>,
}

impl Verdicts for Said {
    fn liveness(&self, id: &str) -> Option<Verdict> {
        self.liveness.get(id).copied()
    }
    fn startup(&self, id: &str) -> Option<Verdict> {
        self.startup.get(id).copied()
    }
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
        .unwrap()
}

fn two(policy: &str) -> Pod {
    pod(
        json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}),
    )
}

fn with_sandbox() -> PodStatus {
    let mut status = PodStatus::empty(PodUid::new("u"), "p", "n");
    status.sandboxes.push(v1::PodSandboxStatus {
        id: "sandbox".into(),
        metadata: Some(v1::PodSandboxMetadata {
            attempt: 0,
            ..Default::default()
        }),
        network: Some(v1::PodSandboxNetworkStatus {
            ip: "10.0.0.2".into(),
            additional_ips: vec![],
        }),
        ..Default::default()
    });
    status
}

fn put(status: &mut PodStatus, name: &str, state: State, exit_code: i32) {
    let container = Container {
        name: name.into(),
        image: Some("i".into()),
        ..Default::default()
    };
    status.containers.push(ContainerStatus {
        id: format!("{name}-id"),
        name: name.into(),
        state,
        created_at: 1,
        started_at: 1,
        finished_at: 2,
        exit_code,
        image: "i".into(),
        image_ref: "i".into(),
        hash: container_hash(&container),
        restart_count: 0,
        reason: String::new(),
        message: String::new(),
        log_path: String::new(),
        user: None,
    });
}

#[test]
fn a_new_pod_gets_a_sandbox_and_all_its_containers() {
    let status = PodStatus::empty(PodUid::new("u"), "p", "n");
    let actions = compute_pod_actions(&two("Always"), &status, &Said::default());
    assert!(actions.create_sandbox && actions.kill_pod);
    assert_eq!((actions.attempt, actions.to_start), (0, vec![0, 1]));
}

#[test]
fn running_containers_are_left_alone() {
    let mut status = with_sandbox();
    put(&mut status, "a", State::Running, 0);
    put(&mut status, "b", State::Running, 0);
    let actions = compute_pod_actions(&two("Always"), &status, &Said::default());
    assert_eq!(
        actions,
        PodActions {
            sandbox_id: "sandbox".into(),
            ..Default::default()
        }
    );
}

#[test]
fn restart_policy_decides_over_exited_containers() {
    let mut status = with_sandbox();
    put(&mut status, "a", State::Exited, 0);
    put(&mut status, "b", State::Exited, 1);
    let starts = |policy| compute_pod_actions(&two(policy), &status, &Said::default()).to_start;
    assert_eq!(starts("Always"), [0, 1]);
    assert_eq!(starts("OnFailure"), [1]);
    let never = compute_pod_actions(&two("Never"), &status, &Said::default());
    assert!(never.kill_pod && !never.create_sandbox && never.to_start.is_empty());
}

#[test]
fn a_dead_sandbox_is_replaced_and_the_attempt_counts() {
    let mut status = with_sandbox();
    status.sandboxes[0].set_state(v1::PodSandboxState::SandboxNotready);
    put(&mut status, "a", State::Exited, 137);
    let actions = compute_pod_actions(&two("Always"), &status, &Said::default());
    assert!(actions.create_sandbox);
    assert_eq!(
        (actions.attempt, actions.to_start.as_slice()),
        (1, [0, 1].as_slice())
    );
    let never = compute_pod_actions(&two("Never"), &status, &Said::default());
    assert!(!never.create_sandbox, "a pod that ran once is not begun again");
}

#[test]
fn a_changed_image_restarts_whatever_the_policy() {
    let mut status = with_sandbox();
    put(&mut status, "a", State::Running, 0);
    put(&mut status, "b", State::Running, 0);
    let mut changed = two("Never");
    changed.spec.as_mut().unwrap().containers[0].image = Some("other".into());
    let actions = compute_pod_actions(&changed, &status, &Said::default());
    assert_eq!(actions.to_start, [0]);
    assert_eq!(
        actions.to_kill[0].message,
        "Container a definition changed, will be restarted"
    );
}

#[test]
fn a_failed_liveness_probe_kills_and_restarts() {
    let mut status = with_sandbox();
    put(&mut status, "a", State::Running, 0);
    put(&mut status, "b", State::Running, 0);
    let said = Said {
        liveness: HashMap::from([("b-id".into(), Verdict::Failure)]),
        ..Default::default()
    };
    let actions = compute_pod_actions(&two("Always"), &status, &said);
    assert_eq!(actions.to_start, [1]);
    assert_eq!(actions.to_kill[0].reason, KillReason::LivenessProbe);
    let never = compute_pod_actions(&two("Never"), &status, &said);
    assert_eq!((never.to_start.len(), never.to_kill.len()), (0, 1));
}

fn with_inits() -> Pod {
    pod(json!({"restartPolicy": "OnFailure",
        "initContainers": [{"name": "i0", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}, {"name": "i1", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]}))
}

#[test]
fn init_containers_run_in_order_and_sidecars_keep_running() {
    let pod = with_inits();
    let mut status = with_sandbox();
    let next = |status: &PodStatus| {
        let actions = compute_pod_actions(&pod, status, &Said::default());
        (actions.init_to_start, actions.to_start)
    };
    assert_eq!(next(&status), (vec![0], vec![]));
    put(&mut status, "i0", State::Running, 0);
    assert_eq!(next(&status), (vec![], vec![]));
    status.containers.clear();
    put(&mut status, "i0", State::Exited, 0);
    assert_eq!(next(&status), (vec![1], vec![]));
    put(&mut status, "s", State::Running, 0);
    assert_eq!(next(&status), (vec![2], vec![]));
    put(&mut status, "i1", State::Exited, 0);
    assert_eq!(next(&status), (vec![], vec![0]));
    put(&mut status, "a", State::Running, 0);
    assert_eq!(next(&status), (vec![], vec![]));
    status.containers.retain(|c| c.name != "s");
    put(&mut status, "s", State::Exited, 1);
    assert_eq!(next(&status), (vec![1], vec![]));
}

#[test]
fn a_failed_init_container_of_a_pod_that_never_restarts_ends_the_pod() {
    let mut pod = with_inits();
    pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    let mut status = with_sandbox();
    put(&mut status, "i0", State::Exited, 1);
    let actions = compute_pod_actions(&pod, &status, &Said::default());
    assert!(actions.kill_pod && actions.init_to_start.is_empty());
    let again = compute_pod_actions(&with_inits(), &status, &Said::default());
    assert_eq!(again.init_to_start, [0]);
}

#[test]
fn a_finished_pod_does_not_keep_its_sidecars() {
    let pod = with_inits();
    let mut status = with_sandbox();
    put(&mut status, "s", State::Exited, 0);
    put(&mut status, "i1", State::Exited, 0);
    put(&mut status, "a", State::Exited, 0);
    let actions = compute_pod_actions(&pod, &status, &Said::default());
    assert!(actions.kill_pod && actions.init_to_start.is_empty());
}

#[test]
fn a_container_in_unknown_state_is_killed_before_it_is_started_again() {
    let mut status = with_sandbox();
    put(&mut status, "a", State::Unknown, 0);
    put(&mut status, "b", State::Running, 0);
    let actions = compute_pod_actions(&two("Always"), &status, &Said::default());
    assert_eq!(
        (actions.to_start.as_slice(), actions.to_kill.len()),
        ([0].as_slice(), 1)
    );
}
