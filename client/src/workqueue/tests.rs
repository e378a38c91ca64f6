use super::*;

fn queue() -> WorkQueue<&'static str> {
    WorkQueue::new("test")
}

async fn next(queue: &WorkQueue<&'static str>) -> Option<&'static str> {
    tokio::time::timeout(Duration::from_secs(5), queue.get())
        .await
        .expect("a key within 5 s")
}

#[tokio::test]
async fn a_key_added_twice_is_handed_out_once() {
    let queue = queue();
    queue.add("a");
    queue.add("b");
    queue.add("a");
    assert_eq!((next(&queue).await, next(&queue).await), (Some("a"), Some("b")));
    assert!(queue.is_empty());
}

#[tokio::test]
async fn a_key_added_while_in_work_waits_for_done() {
    let queue = queue();
    queue.add("a");
    assert_eq!(next(&queue).await, Some("a"));
    queue.add("a");
    assert!(queue.is_empty(), "two workers must never have the same key");
    queue.done(&"a");
    assert_eq!(next(&queue).await, Some("a"));
}

#[tokio::test]
async fn shut_down_hands_out_what_is_queued_and_then_ends() {
    let queue = queue();
    queue.add("a");
    queue.add_after("later", Duration::from_secs(60));
    queue.shut_down();
    queue.add("b");
    assert_eq!((next(&queue).await, next(&queue).await), (Some("a"), None));
}

#[tokio::test]
async fn a_waiting_worker_wakes_for_an_earlier_key_than_it_slept_for() {
    let queue = queue();
    queue.add_after("late", Duration::from_secs(60));
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { queue.get().await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    queue.add_after("soon", Duration::from_millis(20));
    assert_eq!(worker.await.unwrap(), Some("soon"));
}

#[tokio::test]
async fn a_sleeping_key_keeps_the_earlier_of_two_times() {
    let queue = queue();
    queue.add_after("a", Duration::from_millis(10));
    queue.add_after("a", Duration::from_secs(60));
    assert_eq!(next(&queue).await, Some("a"));
    queue.done(&"a");
    queue.add_after("a", Duration::from_secs(60));
    queue.add_after("a", Duration::from_millis(10));
    assert_eq!(next(&queue).await, Some("a"));
}

#[test]
fn delays_double_from_5_ms_to_1000_s_until_forgotten() {
    let queue = queue();
    let delays: Vec<_> = (0..3).map(|_| queue.next_delay(&"a").as_millis()).collect();
    assert_eq!(delays, [5, 10, 20]);
    for _ in 0..40 {
        queue.next_delay(&"a");
    }
    assert_eq!(queue.next_delay(&"a"), MAX_DELAY);
    assert_eq!(queue.num_requeues(&"a"), 44);
    queue.forget(&"a");
    assert_eq!(queue.next_delay(&"a"), BASE_DELAY);
}

#[tokio::test]
async fn many_due_keys_wake_many_workers() {
    let queue: WorkQueue<usize> = WorkQueue::new("many");
    for key in 0..100 {
        queue.add_after(key, Duration::from_millis(5));
    }
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut taken = 0;
                while let Some(key) = queue.get().await {
                    taken += 1;
                    queue.done(&key);
                }
                taken
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    queue.shut_down();
    let mut total = 0;
    for worker in workers {
        total += tokio::time::timeout(Duration::from_secs(5), worker)
            .await
            .expect("workers end")
            .unwrap();
    }
    assert_eq!(total, 100);
}
