use super::*;
use crate::fake::FakeServer;
use std::sync::atomic::AtomicUsize;

fn config(identity: &str) -> LeaderElection {
    LeaderElection {
        lease_duration: Duration::from_secs(1),
        renew_deadline: Duration::from_millis(600),
        retry_period: Duration::from_millis(50),
        ..LeaderElection::new("kube-system", "test", identity.into())
    }
}

fn candidate(server: &FakeServer, identity: &str) -> Candidate {
    let recorder = EventRecorder::new(server.client(), "test", "");
    Candidate::new(server.client(), config(identity), recorder)
}

#[tokio::test]
async fn only_one_of_two_holds_the_lease_and_a_silent_holder_loses_it() {
    let server = FakeServer::new();
    let (mut a, mut b) = (candidate(&server, "a"), candidate(&server, "b"));
    assert!(a.try_acquire_or_renew().await.unwrap());
    assert!(!b.try_acquire_or_renew().await.unwrap());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(
        b.try_acquire_or_renew().await.unwrap(),
        "a was silent for longer than its lease"
    );
    assert_eq!(b.spec().unwrap().lease_transitions, Some(1));
    assert!(
        !a.try_acquire_or_renew().await.unwrap(),
        "a's own write conflicts, and then it sees b"
    );
}

#[tokio::test]
async fn a_released_lease_is_taken_at_once() {
    let server = FakeServer::new();
    let (mut a, mut b) = (candidate(&server, "a"), candidate(&server, "b"));
    assert!(a.try_acquire_or_renew().await.unwrap());
    a.release().await.unwrap();
    assert!(b.try_acquire_or_renew().await.unwrap());
}

#[tokio::test]
async fn a_token_fences_writes_after_its_lease_but_not_reads() {
    let server = FakeServer::new();
    let token = LeaderToken::new("kube-system/test".into(), 0);
    token.extend(Instant::now(), Duration::from_millis(50));
    let client = server.client().fenced(token);
    let api = client.namespaced::<Lease>("ns");
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some("x".into()),
            ..ObjectMeta::default()
        },
        spec: None,
    };
    api.create(&lease).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(matches!(api.update(&lease).await, Err(Error::Fenced(_))));
    api.get("x").await.unwrap();
}

#[tokio::test]
async fn losing_the_lease_ends_the_work_and_it_begins_again_later() {
    let server = FakeServer::new();
    let terms = Arc::new(AtomicUsize::new(0));
    let work = {
        let terms = terms.clone();
        move |_token| {
            terms.fetch_add(1, Ordering::AcqRel);
            std::future::pending::<()>()
        }
    };
    let task = tokio::spawn(run(server.client(), config("a"), Drain::new(), work));
    let api = server.client().namespaced::<Lease>("kube-system");
    let reached = |n| {
        let terms = terms.clone();
        async move {
            for _ in 0..500 {
                if terms.load(Ordering::Acquire) >= n {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("term {n} did not begin");
        }
    };
    reached(1).await;
    let mut lease = api.get("test").await.unwrap();
    while let Err(error) = {
        let spec = lease.spec.as_mut().unwrap();
        spec.holder_identity = Some("thief".into());
        api.update(&lease).await
    } {
        assert!(error.is_conflict());
        lease = api.get("test").await.unwrap();
    }
    reached(2).await;
    task.abort();
}

#[test]
fn durations_under_which_two_could_lead_are_refused() {
    let mut config = config("a");
    config.lease_duration = Duration::from_secs(15);
    config.renew_deadline = Duration::from_secs(10);
    config.retry_period = Duration::from_secs(2);
    config.validate().unwrap();
    config.renew_deadline = Duration::from_secs(15);
    assert!(config.validate().is_err());
}
