//! Jobs select their pods by their own uid unless told otherwise; CronJobs carry a job's template.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::meta::Meta;
use apimachinery::value::Value;

use super::core::pods::validate_template;
use super::strategy::{Request, Strategy};

pub struct JobStrategy {
    pub allow_privileged: bool,
}

pub struct CronJobStrategy {
    pub allow_privileged: bool,
}

const SPEC: Path<'static> = Path::new("spec");
const RESTART_POLICIES: [&str; 2] = ["OnFailure", "Never"];

/// The old and the present label of a job's pods, for uid and name.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

impl Strategy for JobStrategy {
    fn validates_required_fields(&self) -> bool {
        true
    }

    fn prepare_create(&self, _: &Request<'_>, job: &mut Value) {
        if !job.bool_at("spec.manualSelector") {
            generate_selector(job);
        }
    }

    fn validate_create(&self, _: &Request<'_>, job: &Value) -> ErrorList {
        let mut errors = validate_spec(
            job.get("spec").unwrap_or(&Value::Null),
            &SPEC,
            self.allow_privileged,
        );
        if job.at("spec.selector").is_none() {
            errors.push(field::required(&SPEC.child("selector"), ""));
        }
        errors
    }

    fn validate_update(&self, request: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if request.subresource == "status" {
            return errors;
        }
        for name in [
            "selector",
            "completionMode",
            "podFailurePolicy",
            "successPolicy",
            "backoffLimitPerIndex",
            "managedBy",
        ] {
            immutable(new, old, name, &mut errors);
        }
        if new.str_at("spec.completionMode") != "Indexed" {
            immutable(new, old, "completions", &mut errors);
        }
        // A suspended job's template may still be narrowed by queueing controllers.
        if !(old.bool_at("spec.suspend") && old.at("status.startTime").is_none()) {
            immutable(new, old, "template", &mut errors);
        }
        errors
    }
}

impl Strategy for CronJobStrategy {
    fn validates_required_fields(&self) -> bool {
        true
    }

    fn validate_create(&self, _: &Request<'_>, cron: &Value) -> ErrorList {
        self.validate(cron)
    }

    fn validate_update(&self, request: &Request<'_>, new: &Value, _: &Value) -> ErrorList {
        if request.subresource == "status" {
            ErrorList::new()
        } else {
            self.validate(new)
        }
    }
}

impl CronJobStrategy {
    fn validate(&self, cron: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let schedule = cron.str_at("spec.schedule");
        let fields = schedule.split_whitespace().count();
        if schedule.is_empty() {
            errors.push(field::required(&SPEC.child("schedule"), ""));
        } else if !schedule.starts_with('@') && fields != 5 {
            let message = format!("expected exactly 5 fields, found {fields}: [{schedule}]");
            errors.push(field::invalid(&SPEC.child("schedule"), schedule, message));
        }
        let policy = cron.str_at("spec.concurrencyPolicy");
        if !matches!(policy, "" | "Allow" | "Forbid" | "Replace") {
            errors.push(field::not_supported(
                &SPEC.child("concurrencyPolicy"),
                policy,
                &["Allow", "Forbid", "Replace"],
            ));
        }
        let template = SPEC.child("jobTemplate");
        let spec = cron.at("spec.jobTemplate.spec").unwrap_or(&Value::Null);
        errors.extend(validate_spec(
            spec,
            &template.child("spec"),
            self.allow_privileged,
        ));
        errors
    }
}

fn generate_selector(job: &mut Value) {
    let (uid, name) = (job.uid().to_owned(), job.name().to_owned());
    job.object_mut_at("spec.selector.matchLabels")
        .insert(UID_LABELS[0], Value::from(uid.clone()));
    let labels = job.object_mut_at("spec.template.metadata.labels");
    for (keys, value) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            labels.insert(key, Value::from(value.clone()));
        }
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, allow_privileged: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        if let Some(n) = spec.int_at(name).filter(|n| *n < 0) {
            errors.push(field::invalid(
                &path.child(name),
                n,
                "must be greater than or equal to 0",
            ));
        }
    }
    let template = path.child("template");
    if spec.str_at("template.spec.restartPolicy") == "Always"
        || spec.str_at("template.spec.restartPolicy").is_empty()
    {
        let at = template.child("spec");
        errors.push(field::required(
            &at.child("restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
    let all = ["Always", RESTART_POLICIES[0], RESTART_POLICIES[1]];
    errors.extend(validate_template(
        spec.get("template"),
        &template,
        &all,
        allow_privileged,
    ));
    errors
}

fn immutable(new: &Value, old: &Value, name: &'static str, errors: &mut ErrorList) {
    let part = |object: &Value| {
        object
            .get("spec")
            .and_then(|s| s.get(name))
            .cloned()
            .unwrap_or_default()
    };
    if part(new) != part(old) {
        errors.push(field::invalid(&SPEC.child(name), part(new), "field is immutable"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_selects_its_pods_by_uid() {
        let mut job = Value::Null;
        job.set_at("metadata.uid", "u1");
        job.set_at("metadata.name", "j");
        generate_selector(&mut job);
        let labels = job.at("spec.template.metadata.labels").unwrap();
        assert_eq!(labels.get("controller-uid").and_then(Value::as_str), Some("u1"));
        assert_eq!(labels.get("job-name").and_then(Value::as_str), Some("j"));
        assert_eq!(
            job.at("spec.selector.matchLabels")
                .unwrap()
                .get("batch.kubernetes.io/controller-uid")
                .and_then(Value::as_str),
            Some("u1")
        );
    }
}
