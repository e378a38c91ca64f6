//! Ready and the pressures.

use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What the node's parts say about themselves; empty is well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    pub errors: Vec<String>,
    pub memory_pressure: bool,
    pub disk_pressure: bool,
    pub pid_pressure: bool,
}

pub fn generate(health: &Health, old: &[NodeCondition], now: &Time) -> Vec<NodeCondition> {
    let pressure = |kind: &str, under: bool, bad: (&str, &str), good: (&str, &str)| {
        let (reason, message) = if under { bad } else { good };
        (kind.to_string(), under, reason.to_string(), message.to_string())
    };
    let ready = health.errors.is_empty();
    let made = [
        pressure(
            "MemoryPressure",
            health.memory_pressure,
            (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            (
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
        ),
        pressure(
            "DiskPressure",
            health.disk_pressure,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            health.pid_pressure,
            (
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
            ),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        (
            "Ready".into(),
            ready,
            if ready { "KubeletReady" } else { "KubeletNotReady" }.to_string(),
            if ready {
                "kubelet is posting ready status".to_string()
            } else {
                joined(&health.errors)
            },
        ),
    ];
    made.into_iter()
        .map(|(kind, holds, reason, message)| condition(kind, holds, reason, message, old, now))
        .collect()
}

fn joined(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn condition(
    kind: String,
    holds: bool,
    reason: String,
    message: String,
    old: &[NodeCondition],
    now: &Time,
) -> NodeCondition {
    let status = if holds { "True" } else { "False" };
    let before = old.iter().find(|c| c.type_ == kind && c.status == status);
    NodeCondition {
        last_transition_time: Some(
            before
                .and_then(|c| c.last_transition_time.clone())
                .unwrap_or_else(|| now.clone()),
        ),
        last_heartbeat_time: Some(now.clone()),
        status: status.into(),
        type_: kind,
        reason: Some(reason),
        message: Some(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Time {
        Time(jiff::Timestamp::from_second(s).unwrap())
    }

    #[test]
    fn ready_says_everything_that_is_wrong() {
        let bad = Health {
            errors: vec!["a".into(), "b".into()],
            ..Default::default()
        };
        let list = generate(&bad, &[], &at(1));
        let ready = list.iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.message.as_deref()),
            ("False", Some("[a, b]"))
        );
    }

    #[test]
    fn the_transition_is_when_the_status_changed() {
        let first = generate(&Health::default(), &[], &at(1));
        let second = generate(&Health::default(), &first, &at(2));
        assert!(
            second
                .iter()
                .all(|c| c.last_transition_time == Some(at(1)) && c.last_heartbeat_time == Some(at(2)))
        );
        let pressed = generate(
            &Health {
                disk_pressure: true,
                ..Default::default()
            },
            &second,
            &at(3),
        );
        let disk = pressed.iter().find(|c| c.type_ == "DiskPressure").unwrap();
        assert_eq!(
            (disk.status.as_str(), disk.last_transition_time.clone()),
            ("True", Some(at(3)))
        );
    }
}
