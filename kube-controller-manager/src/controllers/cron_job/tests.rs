use super::*;
use client::ListOptions;
use client::fake::FakeServer;
use client::informer::Informer;
use serde_json::{Value, json};

fn owned(jobs: Vec<Job>) -> Store<Job> {
    let informer =
        Informer::new(FakeServer::new().client().all(), Default::default()).index(OWNER, |j: &Job| {
            j.metadata
                .owner_references
                .iter()
                .flatten()
                .map(|r| r.uid.clone())
                .collect()
        });
    informer.store().fill(jobs);
    informer.store()
}

async fn made(server: &FakeServer, spec: Value, minutes_ago: i64) -> CronJob {
    let created = Timestamp::from_second(Timestamp::now().as_second() - 60 * minutes_ago)
        .unwrap()
        .to_string();
    let mut value = json!({"metadata": {"name": "c", "creationTimestamp": created}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {}}}}});
    for (name, field) in spec.as_object().unwrap() {
        value["spec"][name] = field.clone();
    }
    server
        .client()
        .namespaced("ns")
        .create(&serde_json::from_value(value).unwrap())
        .await
        .unwrap()
}

async fn sync(server: &FakeServer) -> Requeue {
    let cron: CronJob = server.client().namespaced("ns").get("c").await.unwrap();
    let controller = CronJobs {
        client: server.client(),
        recorder: EventRecorder::new(server.client(), "test", ""),
        crons: Store::of([cron]),
        jobs: owned(jobs(server).await),
    };
    controller.reconcile("ns/c").await.unwrap()
}

async fn jobs(server: &FakeServer) -> Vec<Job> {
    server
        .client()
        .namespaced::<Job>("ns")
        .list(&ListOptions::default())
        .await
        .unwrap()
        .items
}

async fn end(server: &FakeServer, job: &Job) {
    let mut job = job.clone();
    job.status = serde_json::from_value(
        json!({"conditions": [{"type": "Complete", "status": "True"}], "completionTime": crate::meta::now()}),
    )
    .unwrap();
    server
        .client()
        .namespaced("ns")
        .update_status(&job)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_due_job_is_started_once_and_forgotten_when_it_ended() {
    let server = FakeServer::new();
    made(&server, json!({"successfulJobsHistoryLimit": 0}), 3).await;
    assert!(matches!(sync(&server).await, Requeue::After(wait) if wait <= Duration::from_secs(61)));
    let started = jobs(&server).await;
    assert_eq!(started.len(), 1);
    let cron: CronJob = server.client().namespaced("ns").get("c").await.unwrap();
    let status = cron.status.unwrap();
    assert_eq!(
        (
            status.active.unwrap().len(),
            status.last_schedule_time.unwrap().0.as_second() % 60
        ),
        (1, 0)
    );
    end(&server, &started[0]).await;
    sync(&server).await;
    assert!(
        !jobs(&server)
            .await
            .iter()
            .any(|j| j.metadata.uid == started[0].metadata.uid),
        "no history is kept"
    );
    let cron: CronJob = server.client().namespaced("ns").get("c").await.unwrap();
    assert!(cron.status.unwrap().last_successful_time.is_some());
}

#[tokio::test]
async fn suspended_and_unreadable_schedules_start_nothing() {
    let server = FakeServer::new();
    made(&server, json!({"suspend": true}), 3).await;
    assert_eq!(sync(&server).await, Requeue::Done);
    let server_b = FakeServer::new();
    made(&server_b, json!({"schedule": "never"}), 3).await;
    assert_eq!(sync(&server_b).await, Requeue::Done);
    let server_c = FakeServer::new();
    made(&server_c, json!({"timeZone": "../../etc/passwd"}), 3).await;
    assert_eq!(sync(&server_c).await, Requeue::Done);
    assert!(
        jobs(&server).await.is_empty()
            && jobs(&server_b).await.is_empty()
            && jobs(&server_c).await.is_empty()
    );
}
