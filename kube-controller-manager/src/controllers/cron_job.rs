//! Starts Jobs on a schedule, and keeps few of those that finished.
//!
//! A Job's name tells its scheduled minute, so that a start is made once even if the status could not be written after it.

mod due;
mod schedule;

use super::job::finished;
use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::pod_events::owner;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::informers::OWNER;
use crate::meta::{controller_reference, is_controlled_by, is_deleted, name, namespace, uid};
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, object_key};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schedule::Schedule;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
const ZONES: &str = "/usr/share/zoneinfo";
const WORKERS: usize = 5;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    Some(Box::new(driver(context)))
}

fn driver(context: &Context) -> Driver<CronJobs> {
    let queue = WorkQueue::new("cronjob");
    let (crons, jobs) = (
        context.informers.cron_jobs.start(),
        context.informers.jobs.start(),
    );
    let heard = queue.clone();
    context.informers.cron_jobs.on_event(move |event| match event {
        Event::Added(cron) | Event::Modified(_, cron) | Event::Deleted(cron) => {
            heard.add(object_key(&**cron))
        }
        Event::Synced => {}
    });
    let (heard, owners) = (queue.clone(), crons.clone());
    context.informers.jobs.on_event(move |event| {
        let (Event::Added(job) | Event::Modified(_, job) | Event::Deleted(job)) = event else {
            return;
        };
        if let Some(cron) = owner(&owners, &**job) {
            heard.add(object_key(&*cron));
        }
    });
    let needs = vec![synced(&crons), synced(&jobs)];
    let (client, recorder) = (
        context.client_for("cronjob-controller"),
        context.recorder("cronjob-controller"),
    );
    Driver {
        name: "cronjob-controller",
        queue,
        reconciler: Arc::new(CronJobs {
            client,
            recorder,
            crons,
            jobs,
        }),
        workers: WORKERS,
        needs,
    }
}

struct CronJobs {
    client: Client,
    recorder: EventRecorder,
    crons: Store<CronJob>,
    jobs: Store<Job>,
}

impl Reconciler for CronJobs {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(cached) = self.crons.get(key) else {
            return Ok(Requeue::Done);
        };
        let mut cron = (*cached).clone();
        let jobs = self.jobs.by_index(OWNER, uid(&cron.metadata));
        self.refresh_active(&mut cron, &jobs).await?;
        let started = match is_deleted(&cron.metadata) {
            true => Ok(None),
            false => self.start_due(&mut cron).await,
        };
        self.clean(&cron, &jobs).await?;
        if cron.status != cached.status {
            self.client
                .namespaced::<CronJob>(namespace(&cron.metadata))
                .update_status(&cron)
                .await?;
        }
        Ok(started?.map_or(Requeue::Done, Requeue::After))
    }
}

impl CronJobs {
    /// Finished and missing Jobs leave the list of active ones.
    async fn refresh_active(&self, cron: &mut CronJob, jobs: &[Arc<Job>]) -> Result<(), Failure> {
        for job in jobs {
            let listed = active(cron).any(|r| r.uid == job.metadata.uid);
            match finished(job) {
                Some(end) => {
                    if listed {
                        forget(cron, uid(&job.metadata));
                        self.tell(
                            cron,
                            "Normal",
                            "SawCompletedJob",
                            &format!(
                                "Saw completed job: {}, condition: {}",
                                name(&job.metadata),
                                end.type_
                            ),
                        );
                    }
                    note_success(cron, job);
                }
                None if !listed => self.tell(
                    cron,
                    "Warning",
                    "UnexpectedJob",
                    &format!(
                        "Saw a job that the controller did not create or forgot: {}",
                        name(&job.metadata)
                    ),
                ),
                None => {}
            }
        }
        let unseen: Vec<_> = active(cron)
            .filter(|r| jobs.iter().all(|j| j.metadata.uid != r.uid))
            .cloned()
            .collect();
        for reference in unseen {
            let job_name = reference.name.as_deref().unwrap_or("");
            match self
                .client
                .namespaced::<Job>(namespace(&cron.metadata))
                .get(job_name)
                .await
            {
                Err(error) if error.is_not_found() => {
                    self.tell(
                        cron,
                        "Normal",
                        "MissingJob",
                        &format!("Active job went missing: {job_name}"),
                    );
                    forget(cron, reference.uid.as_deref().unwrap_or(""));
                }
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// The time until the next start.
    async fn start_due(&self, cron: &mut CronJob) -> Result<Option<Duration>, Failure> {
        let Some((schedule, zone)) = self.schedule(cron) else {
            return Ok(None);
        };
        let now = Timestamp::now();
        let due = match due::due(cron, &schedule, &zone, now, true) {
            Ok(due) => due,
            Err(error) => {
                self.tell(
                    cron,
                    "Warning",
                    "InvalidSchedule",
                    &format!("invalid schedule: {} : {error}", cron.spec.schedule),
                );
                return Ok(None);
            }
        };
        if due.missed_many {
            self.tell(cron, "Warning", "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew");
        }
        if let Some(at) = due.at
            && self.may_start(cron, at, now).await?
        {
            self.start(cron, at, &zone).await?;
        }
        Ok(due::until_next(cron, &schedule, &zone, now))
    }

    /// `None` for what cannot run until its user changes it.
    fn schedule(&self, cron: &CronJob) -> Option<(Schedule, TimeZone)> {
        let zone = match zone(cron.spec.time_zone.as_deref()) {
            Ok(zone) => zone,
            Err(error) => {
                let wanted = cron.spec.time_zone.as_deref().unwrap_or("");
                self.tell(
                    cron,
                    "Warning",
                    "UnknownTimeZone",
                    &format!("invalid timeZone: {wanted:?}: {error}"),
                );
                return None;
            }
        };
        if cron.spec.suspend == Some(true) {
            return None;
        }
        match Schedule::parse(&cron.spec.schedule) {
            Ok(schedule) => Some((schedule, zone)),
            Err(error) => {
                self.tell(
                    cron,
                    "Warning",
                    "UnparseableSchedule",
                    &format!("unparseable schedule: {:?} : {error}", cron.spec.schedule),
                );
                None
            }
        }
    }

    async fn may_start(&self, cron: &mut CronJob, at: Timestamp, now: Timestamp) -> Result<bool, Failure> {
        let late = cron
            .spec
            .starting_deadline_seconds
            .is_some_and(|limit| now.as_second() - at.as_second() > limit);
        if late {
            let when = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
            self.tell(
                cron,
                "Warning",
                "MissSchedule",
                &format!("Missed scheduled time to start a job: {when}"),
            );
            return Ok(false);
        }
        let wanted = job_name(cron, at);
        let done = cron
            .status
            .as_ref()
            .and_then(|s| s.last_schedule_time.as_ref())
            .is_some_and(|t| t.0 == at);
        if done || active(cron).any(|r| r.name.as_deref() == Some(&wanted)) {
            return Ok(false);
        }
        let running: Vec<_> = active(cron).cloned().collect();
        match cron.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !running.is_empty() => {
                self.tell(
                    cron,
                    "Normal",
                    "JobAlreadyActive",
                    "Not starting job because prior execution is running and concurrency policy is Forbid",
                );
                return Ok(false);
            }
            Some("Replace") => {
                for reference in running {
                    self.delete(cron, reference.name.as_deref().unwrap_or("")).await?;
                    forget(cron, reference.uid.as_deref().unwrap_or(""));
                }
            }
            _ => {}
        }
        Ok(true)
    }

    async fn start(&self, cron: &mut CronJob, at: Timestamp, zone: &TimeZone) -> Result<(), Failure> {
        let wanted = job_of(cron, at, zone);
        let api = self.client.namespaced::<Job>(namespace(&cron.metadata));
        let job = match api.create(&wanted).await {
            // Made before, and the status was lost.
            Err(error) if error.is_already_exists() => {
                let known = api.get(name(&wanted.metadata)).await?;
                if !is_controlled_by(&known.metadata, &cron.metadata)
                    || active(cron).any(|r| r.uid == known.metadata.uid)
                {
                    return Ok(());
                }
                known
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    self.tell(
                        cron,
                        "Warning",
                        "FailedCreate",
                        &format!("Error creating job: {error}"),
                    );
                }
                return Err(error.into());
            }
            Ok(job) => {
                self.tell(
                    cron,
                    "Normal",
                    "SuccessfulCreate",
                    &format!("Created job {}", name(&job.metadata)),
                );
                job
            }
        };
        let status = cron.status.get_or_insert_default();
        status.active.get_or_insert_default().push(object_reference(&job));
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }

    /// The oldest beyond the limits of successful and of failed ones.
    async fn clean(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<(), Failure> {
        let limits = [
            ("Complete", cron.spec.successful_jobs_history_limit),
            ("Failed", cron.spec.failed_jobs_history_limit),
        ];
        for (end, limit) in limits {
            let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else {
                continue;
            };
            let mut ended: Vec<_> = jobs
                .iter()
                .filter(|j| !is_deleted(&j.metadata) && finished(j).is_some_and(|c| c.type_ == end))
                .collect();
            ended.sort_by_key(|j| {
                (
                    j.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0),
                    j.metadata.name.clone(),
                )
            });
            for job in &ended[..ended.len().saturating_sub(limit)] {
                self.delete(cron, name(&job.metadata)).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, job: &str) -> Result<(), Failure> {
        let options = DeleteOptions {
            propagation_policy: Some("Background".into()),
            ..DeleteOptions::default()
        };
        match self
            .client
            .namespaced::<Job>(namespace(&cron.metadata))
            .delete(job, &options)
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.tell(cron, "Warning", "FailedDelete", &format!("Deleted job: {error}"));
                Err(error.into())
            }
            Ok(()) => {
                self.tell(cron, "Normal", "SuccessfulDelete", &format!("Deleted job {job}"));
                Ok(())
            }
        }
    }

    fn tell(&self, cron: &CronJob, type_: &str, reason: &str, message: &str) {
        self.recorder
            .event(&object_reference(cron), type_, reason, message);
    }
}

fn active(cron: &CronJob) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ObjectReference> {
    cron.status.iter().flat_map(|s| s.active.iter().flatten())
}

fn forget(cron: &mut CronJob, uid: &str) {
    let Some(CronJobStatus { active, .. }) = &mut cron.status else {
        return;
    };
    let left: Vec<_> = active
        .take()
        .into_iter()
        .flatten()
        .filter(|r| r.uid.as_deref() != Some(uid))
        .collect();
    *active = (!left.is_empty()).then_some(left);
}

fn note_success(cron: &mut CronJob, job: &Job) {
    let ended = job.status.as_ref().and_then(|s| s.completion_time.clone());
    let known = cron
        .status
        .as_ref()
        .and_then(|s| s.last_successful_time.as_ref())
        .map(|t| t.0);
    if let Some(ended) = ended
        .filter(|e| finished(job).is_some_and(|c| c.type_ == "Complete") && known.is_none_or(|k| e.0 > k))
    {
        cron.status.get_or_insert_default().last_successful_time = Some(ended);
    }
}

fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", name(&cron.metadata), at.as_second() / 60)
}

fn job_of(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = &cron.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.into(), rfc3339(at, zone));
    let metadata = ObjectMeta {
        name: Some(job_name(cron, at)),
        labels: meta.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(cron)]),
        ..ObjectMeta::default()
    };
    Job {
        metadata,
        spec: template.spec.clone(),
        status: None,
    }
}

fn rfc3339(at: Timestamp, zone: &TimeZone) -> String {
    let local = at.to_zoned(zone.clone());
    match local.offset().seconds() {
        0 => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}

/// From the system's files; without a name it is the system's own zone, and UTC where there is none.
fn zone(wanted: Option<&str>) -> Result<TimeZone, String> {
    let file = match wanted {
        None => match std::fs::read("/etc/localtime") {
            Ok(data) => return Ok(TimeZone::tzif("Local", &data).unwrap_or(TimeZone::UTC)),
            Err(_) => return Ok(TimeZone::UTC),
        },
        Some("" | "UTC" | "Etc/UTC") => return Ok(TimeZone::UTC),
        Some(name) => name,
    };
    // The name is the user's, and becomes a path.
    if file.starts_with('/') || file.split('/').any(|part| part == "..") {
        return Err(format!("unknown time zone {file}"));
    }
    let data = std::fs::read(Path::new(ZONES).join(file)).map_err(|_| format!("unknown time zone {file}"))?;
    TimeZone::tzif(file, &data).map_err(|_| format!("unknown time zone {file}"))
}

#[cfg(test)]
mod tests;
