//! Controllers of pods: how many are wanted, there and ready.

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use super::text::{NONE, Row, UNSET, has_condition, human_duration, labels, seconds, selector};
use super::{Printer, age, boolean, integer, name, string, wide};

pub const PRINTERS: &[Printer] = &[
    Printer {
        group: "apps",
        resource: "deployments",
        columns: &[
            name(),
            string("Ready"),
            string("Up-to-date"),
            string("Available"),
            age(),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: deployment,
    },
    Printer {
        group: "apps",
        resource: "replicasets",
        columns: &[
            name(),
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            age(),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: replica_set,
    },
    Printer {
        group: "",
        resource: "replicationcontrollers",
        columns: &[
            name(),
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            age(),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: replication_controller,
    },
    Printer {
        group: "apps",
        resource: "statefulsets",
        columns: &[name(), string("Ready"), age(), wide("Containers"), wide("Images")],
        cells: stateful_set,
    },
    Printer {
        group: "apps",
        resource: "daemonsets",
        columns: &[
            name(),
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            integer("Up-to-date"),
            integer("Available"),
            string("Node Selector"),
            age(),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: daemon_set,
    },
    Printer {
        group: "apps",
        resource: "controllerrevisions",
        columns: &[name(), string("Controller"), string("Revision"), age()],
        cells: controller_revision,
    },
    Printer {
        group: "batch",
        resource: "jobs",
        columns: &[
            name(),
            string("Status"),
            string("Completions"),
            string("Duration"),
            age(),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: job,
    },
    Printer {
        group: "batch",
        resource: "cronjobs",
        columns: &[
            name(),
            string("Schedule"),
            string("Timezone"),
            boolean("Suspend"),
            integer("Active"),
            string("Last Schedule"),
            age(),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells: cron_job,
    },
    Printer {
        group: "autoscaling",
        resource: "horizontalpodautoscalers",
        columns: &[
            name(),
            string("Reference"),
            string("Targets"),
            string("MinPods"),
            string("MaxPods"),
            string("Replicas"),
            age(),
        ],
        cells: autoscaler,
    },
    Printer {
        group: "policy",
        resource: "poddisruptionbudgets",
        columns: &[
            name(),
            string("Min Available"),
            string("Max Unavailable"),
            integer("Allowed Disruptions"),
            age(),
        ],
        cells: disruption_budget,
    },
];

const TEMPLATE: &str = "spec.template.spec.containers";

fn ready_of(row: &Row<'_>) -> Value {
    let count = |path| row.object.int_at(path).unwrap_or_default();
    format!("{}/{}", count("status.readyReplicas"), count("spec.replicas")).into()
}

fn deployment(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers(TEMPLATE);
    let selector = selector(row.object.at("spec.selector"));
    vec![
        row.name(),
        ready_of(row),
        row.int("status.updatedReplicas"),
        row.int("status.availableReplicas"),
        row.age(),
        names,
        images,
        selector.into(),
    ]
}

fn replicas(row: &Row<'_>, selector: String) -> Vec<Value> {
    let [names, images] = row.containers(TEMPLATE);
    vec![
        row.name(),
        row.int("spec.replicas"),
        row.int("status.replicas"),
        row.int("status.readyReplicas"),
        row.age(),
        names,
        images,
        selector.into(),
    ]
}

fn replica_set(row: &Row<'_>) -> Vec<Value> {
    replicas(row, selector(row.object.at("spec.selector")))
}

fn replication_controller(row: &Row<'_>) -> Vec<Value> {
    replicas(row, labels(row.object.at("spec.selector")))
}

fn stateful_set(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers(TEMPLATE);
    vec![row.name(), ready_of(row), row.age(), names, images]
}

fn daemon_set(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers(TEMPLATE);
    vec![
        row.name(),
        row.int("status.desiredNumberScheduled"),
        row.int("status.currentNumberScheduled"),
        row.int("status.numberReady"),
        row.int("status.updatedNumberScheduled"),
        row.int("status.numberAvailable"),
        labels(row.object.at("spec.template.spec.nodeSelector")).into(),
        row.age(),
        names,
        images,
        selector(row.object.at("spec.selector")).into(),
    ]
}

fn controller_revision(row: &Row<'_>) -> Vec<Value> {
    let controller = row.object.controller_of().map_or_else(
        || NONE.to_owned(),
        |owner| {
            let group = owner
                .str_at("apiVersion")
                .split_once('/')
                .map(|(group, _)| format!(".{group}"))
                .unwrap_or_default();
            format!(
                "{}{group}/{}",
                owner.str_at("kind").to_lowercase(),
                owner.str_at("name")
            )
        },
    );
    vec![row.name(), controller.into(), row.int("revision"), row.age()]
}

fn job(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers(TEMPLATE);
    let took = match (
        seconds(row.object.str_at("status.startTime")),
        seconds(row.object.str_at("status.completionTime")),
    ) {
        (None, _) => String::new(),
        (Some(start), end) => human_duration(end.unwrap_or(row.now) - start),
    };
    vec![
        row.name(),
        job_status(row).into(),
        completions(row.object).into(),
        took.into(),
        row.age(),
        names,
        images,
        selector(row.object.at("spec.selector")).into(),
    ]
}

fn job_status(row: &Row<'_>) -> &'static str {
    let has = |kind| has_condition(row.object.list_at("status.conditions"), kind);
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if row.is_deleting() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = job.int_at("status.succeeded").unwrap_or_default();
    match (
        job.int_at("spec.completions"),
        job.int_at("spec.parallelism").unwrap_or_default(),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn cron_job(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("spec.jobTemplate.spec.template.spec.containers");
    let last = match row.object.str_at("status.lastScheduleTime") {
        "" => NONE.to_owned(),
        time => row.since(time),
    };
    let suspend = match row.object.at("spec.suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    vec![
        row.name(),
        row.text("spec.schedule"),
        row.text_or("spec.timeZone", NONE),
        suspend.into(),
        (row.object.list_at("status.active").len() as i64).into(),
        last.into(),
        row.age(),
        names,
        images,
        selector(row.object.at("spec.jobTemplate.spec.selector")).into(),
    ]
}

fn autoscaler(row: &Row<'_>) -> Vec<Value> {
    let target = format!(
        "{}/{}",
        row.object.str_at("spec.scaleTargetRef.kind"),
        row.object.str_at("spec.scaleTargetRef.name")
    );
    let min = row
        .object
        .int_at("spec.minReplicas")
        .map_or_else(|| UNSET.to_owned(), |n| n.to_string());
    vec![
        row.name(),
        target.into(),
        metrics(row.object).into(),
        min.into(),
        row.int("spec.maxReplicas"),
        row.int("status.currentReplicas"),
        row.age(),
    ]
}

/// `cpu: 12%/80%`; other metrics by name and target.
fn metrics(autoscaler: &Value) -> String {
    let current = autoscaler.list_at("status.currentMetrics");
    let shown: Vec<String> = autoscaler
        .list_at("spec.metrics")
        .iter()
        .enumerate()
        .map(|(at, metric)| one_metric(metric, current.get(at)))
        .collect();
    match shown.len() {
        0 => NONE.to_owned(),
        n if n > 2 => format!("{} + {} more...", shown[..2].join(", "), n - 2),
        _ => shown.join(", "),
    }
}

fn one_metric(metric: &Value, current: Option<&Value>) -> String {
    let name = metric.str_at("resource.name");
    if let Some(target) = metric.int_at("resource.target.averageUtilization") {
        let now = current
            .and_then(|c| c.int_at("resource.current.averageUtilization"))
            .map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%"));
        return format!("{name}: {now}/{target}%");
    }
    let quantity = |value: Option<&Value>, path: &str| {
        value
            .map(|v| v.str_at(path))
            .filter(|s| !s.is_empty())
            .unwrap_or("<unknown>")
            .to_owned()
    };
    if !name.is_empty() {
        return format!(
            "{name}: {}/{}",
            quantity(current, "resource.current.averageValue"),
            quantity(Some(metric), "resource.target.averageValue")
        );
    }
    let source = ["pods", "object", "external", "containerResource"]
        .into_iter()
        .find_map(|s| metric.get(s));
    format!("<unknown>/{}", quantity(source, "target.averageValue"))
}

fn disruption_budget(row: &Row<'_>) -> Vec<Value> {
    let amount = |path| match row.object.at(path) {
        Some(Value::Int(n)) => n.to_string(),
        Some(Value::Str(s)) => s.to_string(),
        _ => "N/A".to_owned(),
    };
    vec![
        row.name(),
        amount("spec.minAvailable").into(),
        amount("spec.maxUnavailable").into(),
        row.int("status.disruptionsAllowed"),
        row.age(),
    ]
}
