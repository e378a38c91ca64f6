//! Pods: the STATUS column tells the most telling thing of phase, containers and deletion.

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use super::text::{NONE, Row, has_condition, human_duration, labels, or, seconds};
use super::{Printer, age, name, string, wide};

pub const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        resource: "pods",
        columns: &[
            name(),
            string("Ready"),
            string("Status"),
            string("Restarts"),
            age(),
            wide("IP"),
            wide("Node"),
            wide("Nominated Node"),
            wide("Readiness Gates"),
        ],
        cells: pod,
    },
    Printer {
        group: "",
        resource: "podtemplates",
        columns: &[
            name(),
            string("Containers"),
            string("Images"),
            string("Pod Labels"),
        ],
        cells: pod_template,
    },
];

fn pod(row: &Row<'_>) -> Vec<Value> {
    let pod = row.object;
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(row.now - at))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = pod
        .list_at("status.podIPs")
        .first()
        .map_or("", |p| p.str_at("ip"));
    vec![
        row.name(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        row.age(),
        or(ip, NONE).into(),
        row.text_or("spec.nodeName", NONE),
        row.text_or("status.nominatedNodeName", NONE),
        readiness_gates(pod).into(),
    ]
}

#[derive(Default)]
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<i64>,
}

impl Summary {
    fn of(pod: &Value) -> Summary {
        let phase = pod.str_at("status.phase");
        let mut summary = Summary {
            reason: or(pod.str_at("status.reason"), phase).to_owned(),
            ..Summary::default()
        };
        let conditions = pod.list_at("status.conditions");
        if conditions
            .iter()
            .any(|c| c.str_at("type") == "PodScheduled" && c.str_at("reason") == "SchedulingGated")
        {
            summary.reason = "SchedulingGated".to_owned();
        }
        let init = pod.list_at("spec.initContainers");
        summary.total = pod.list_at("spec.containers").len() + init.iter().filter(|c| is_sidecar(c)).count();
        let sidecars = summary.init_containers(pod, init);
        if sidecars.is_none() || has_condition(conditions, "Initialized") {
            (summary.restarts, summary.last_restart) = sidecars_restarts(pod, init);
            summary.containers(pod, has_condition(conditions, "Ready"));
        }
        if pod.deletion_timestamp().is_some() {
            match (pod.str_at("status.reason"), phase) {
                ("NodeLost", _) => summary.reason = "Unknown".to_owned(),
                (_, "Failed" | "Succeeded") => {}
                _ => summary.reason = "Terminating".to_owned(),
            }
        }
        summary
    }

    /// `Some` while initializing: the reason then is of the init container that it waits for.
    fn init_containers(&mut self, pod: &Value, init: &[Value]) -> Option<()> {
        for (at, status) in pod.list_at("status.initContainerStatuses").iter().enumerate() {
            self.count_restarts(status);
            let sidecar = init
                .iter()
                .any(|c| c.str_at("name") == status.str_at("name") && is_sidecar(c));
            if let Some(terminated) = status.at("state.terminated") {
                if terminated.int_at("exitCode").unwrap_or_default() == 0 {
                    continue;
                }
                if !(sidecar && status.bool_at("started")) {
                    self.reason = format!("Init:{}", exit_reason(terminated));
                    return Some(());
                }
            }
            if sidecar && status.bool_at("started") {
                self.ready += usize::from(status.bool_at("ready"));
                continue;
            }
            self.reason = match status.str_at("state.waiting.reason") {
                "" | "PodInitializing" => format!("Init:{at}/{}", init.len()),
                reason => format!("Init:{reason}"),
            };
            return Some(());
        }
        None
    }

    fn containers(&mut self, pod: &Value, pod_is_ready: bool) {
        let (mut running, mut failure) = (false, None);
        for status in pod.list_at("status.containerStatuses").iter().rev() {
            self.count_restarts(status);
            let waiting = status.str_at("state.waiting.reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(terminated) = status.at("state.terminated") {
                self.reason = exit_reason(terminated);
                if terminated.int_at("exitCode").unwrap_or_default() != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if status.bool_at("ready") && status.at("state.running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            match (running, failure) {
                (true, _) if pod_is_ready => self.reason = "Running".to_owned(),
                (_, Some(reason)) => self.reason = reason,
                (true, None) => self.reason = "NotReady".to_owned(),
                (false, None) => {}
            }
        }
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += status.int_at("restartCount").unwrap_or_default();
        self.last_restart = self.last_restart.max(finished(status));
    }
}

fn sidecars_restarts(pod: &Value, init: &[Value]) -> (i64, Option<i64>) {
    let sidecar = |s: &&Value| {
        init.iter()
            .any(|c| c.str_at("name") == s.str_at("name") && is_sidecar(c))
    };
    let statuses = pod.list_at("status.initContainerStatuses").iter().filter(sidecar);
    statuses.fold((0, None), |(count, last), s| {
        (
            count + s.int_at("restartCount").unwrap_or_default(),
            last.max(finished(s)),
        )
    })
}

fn finished(status: &Value) -> Option<i64> {
    seconds(status.str_at("lastState.terminated.finishedAt"))
}

fn is_sidecar(container: &Value) -> bool {
    container.str_at("restartPolicy") == "Always"
}

fn exit_reason(terminated: &Value) -> String {
    match (
        terminated.str_at("reason"),
        terminated.int_at("signal").unwrap_or_default(),
    ) {
        ("", 0) => format!("ExitCode:{}", terminated.int_at("exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.list_at("spec.readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = gates
        .iter()
        .filter(|g| has_condition(pod.list_at("status.conditions"), g.str_at("conditionType")))
        .count();
    format!("{met}/{}", gates.len())
}

fn pod_template(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("template.spec.containers");
    vec![
        row.name(),
        names,
        images,
        labels(row.object.at("template.metadata.labels")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::cells;
    use serde_json::{Value, json};

    /// READY, STATUS, RESTARTS
    fn shown(pod: Value) -> [String; 3] {
        let cells = cells("", "pods", pod);
        [cells[1].clone(), cells[2].clone(), cells[3].clone()]
    }

    fn pod(status: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}, "status": status})
    }

    #[test]
    fn a_pod_shows_how_far_its_init_containers_are() {
        let waiting = pod(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
        );
        assert_eq!(shown(waiting), ["0/3", "Init:0/2", "0"]);
        let crashing = pod(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
        );
        assert_eq!(shown(crashing), ["0/3", "Init:CrashLoopBackOff", "2"]);
        let failed = pod(
            json!({"phase": "Failed", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
        );
        assert_eq!(shown(failed)[1], "Init:ExitCode:3");
    }

    #[test]
    fn sidecars_count_as_containers() {
        let running = pod(json!({
            "phase": "Running",
            "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}, {"name": "b", "ready": false, "state": {"running": {}}}],
        }));
        assert_eq!(shown(running), ["2/3", "Running", "0"]);
    }

    #[test]
    fn a_crash_shows_its_reason_and_when_it_was() {
        let status = json!({
            "phase": "Running",
            "conditions": [{"type": "Initialized", "status": "True"}],
            "containerStatuses": [
                {"name": "a", "ready": true, "state": {"running": {}}},
                {"name": "b", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2023-11-14T22:12:20Z", "exitCode": 1}}},
            ],
        });
        assert_eq!(shown(pod(status)), ["1/3", "CrashLoopBackOff", "4 (60s ago)"]);
    }

    #[test]
    fn finished_and_deleted_pods_say_so() {
        let done = json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]});
        assert_eq!(shown(pod(done.clone()))[1], "Completed");
        let error = json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]});
        assert_eq!(shown(pod(error))[1], "Error");
        let mut deleting = pod(json!({"phase": "Running"}));
        deleting["metadata"]["deletionTimestamp"] = "2023-11-14T22:12:20Z".into();
        assert_eq!(shown(deleting)[1], "Terminating");
        let mut gone = pod(done);
        gone["metadata"]["deletionTimestamp"] = "2023-11-14T22:12:20Z".into();
        assert_eq!(shown(gone)[1], "Completed");
        assert_eq!(
            shown(pod(json!({"phase": "Failed", "reason": "Evicted"})))[1],
            "Evicted"
        );
    }
}
