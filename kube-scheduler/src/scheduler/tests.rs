use super::*;
use crate::config::{Configuration, build_profiles, complete};
use crate::testing::{NodeBuilder, PodBuilder, node, pod, taint};

/// A cluster with a clock that a test moves.
struct Cluster {
    scheduler: Scheduler,
    pods: HashMap<String, Arc<Pod>>,
    now: Instant,
}

impl Cluster {
    fn new() -> Self {
        Self::with_seed(7)
    }

    fn with_seed(seed: u64) -> Self {
        let profiles = build_profiles(&complete(Configuration::default()).expect("valid")).expect("builds");
        let now = Instant::now();
        let scheduler = Scheduler::new(profiles, Settings::default(), 0, seed, now);
        Self {
            scheduler,
            pods: HashMap::new(),
            now,
        }
    }

    fn node(mut self, node: NodeBuilder) -> Self {
        self.put_node(node);
        self
    }

    fn put_node(&mut self, node: NodeBuilder) {
        self.scheduler.put_node(None, &Arc::new(node.build()), self.now);
    }

    fn put(&mut self, pod: PodBuilder) {
        let pod = Arc::new(pod.build());
        let name = pod.metadata.name.clone().expect("a name");
        let old = self.pods.insert(name, Arc::clone(&pod));
        self.scheduler.put_pod(old.as_ref(), &pod, self.now);
    }

    fn delete(&mut self, name: &str) {
        let pod = self.pods.remove(name).expect("the pod");
        self.scheduler.remove_pod(&pod, self.now);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += std::time::Duration::from_secs(seconds);
        self.scheduler.flush(self.now);
    }

    fn next(&mut self) -> Option<Outcome> {
        self.scheduler.schedule_next(self.now)
    }

    /// The node that the next pod goes to.
    fn bound(&mut self) -> String {
        match self.next() {
            Some(Outcome::Bind(binding)) => binding.node.to_string(),
            other => panic!("not bound: {other:?}"),
        }
    }

    fn refused(&mut self) -> Refused {
        match self.next() {
            Some(Outcome::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn sized(name: &str, cpu: &str) -> NodeBuilder {
    node(name).capacity(cpu, "8Gi", 110)
}

#[test]
fn the_refusal_names_every_reason_as_upstream_does() {
    let mut cluster = Cluster::new()
        .node(sized("small", "1"))
        .node(node("tainted-1").taint(taint("a", "", "NoSchedule")))
        .node(node("tainted-2").taint(taint("a", "", "NoSchedule")));
    cluster.put(pod("p").container("2", "1Gi"));
    let refused = cluster.refused();
    assert_eq!(
        refused.message,
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    assert_eq!(
        (refused.reason, refused.nominated.as_deref()),
        ("Unschedulable", Some(""))
    );
}

#[test]
fn a_full_node_without_lesser_pods_has_no_victims() {
    let mut cluster = Cluster::new().node(sized("n", "2"));
    cluster.put(pod("there").container("2", "1Gi").on_node("n"));
    cluster.put(pod("p").container("1", "1Gi"));
    assert_eq!(
        cluster.refused().message,
        "0/1 nodes are available: 1 Insufficient cpu. \
         preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
}

#[test]
fn without_nodes_a_pod_waits_for_the_first_one() {
    let mut cluster = Cluster::new();
    cluster.put(pod("p"));
    assert_eq!(cluster.refused().message, "no nodes available to schedule pods");
    assert!(cluster.next().is_none());
    cluster.put_node(node("n"));
    assert_eq!(cluster.bound(), "n");
}

#[test]
fn an_assumed_pod_takes_its_room_until_the_binding_fails() {
    let mut cluster = Cluster::new().node(sized("n", "1"));
    cluster.put(pod("a").container("1", "1Gi"));
    assert_eq!(cluster.bound(), "n");
    cluster.put(pod("b").container("1", "1Gi"));
    assert!(cluster.refused().message.contains("Insufficient cpu"));
    let failed = cluster
        .scheduler
        .bind_failed(&"a-uid".into(), "no", cluster.now)
        .expect("assumed");
    assert_eq!((failed.reason, &*failed.pod.name), ("SchedulerError", "a"));
    // The room that became free is b's; a met an error and waits its backoff out.
    assert_eq!(cluster.bound(), "n");
    assert!(cluster.next().is_none());
}

#[test]
fn a_confirmed_pod_is_counted_once() {
    let mut cluster = Cluster::new().node(sized("n", "2"));
    cluster.put(pod("a").container("1", "1Gi"));
    cluster.bound();
    cluster.put(pod("a").container("1", "1Gi").on_node("n").version("2"));
    assert_eq!(cluster.scheduler.cache_size(), (1, 1, 0));
    assert_eq!(cluster.scheduler.world.nodes.milli_cpu.free(0), 1000);
    cluster.delete("a");
    assert_eq!(cluster.scheduler.world.nodes.milli_cpu.free(0), 2000);
}

#[test]
fn a_pod_that_finished_gives_its_room_back() {
    let mut cluster = Cluster::new().node(sized("n", "1"));
    cluster.put(pod("a").container("1", "1Gi").on_node("n"));
    cluster.put(pod("b").container("1", "1Gi"));
    cluster.refused();
    cluster.put(
        pod("a")
            .container("1", "1Gi")
            .on_node("n")
            .phase("Succeeded")
            .version("2"),
    );
    assert_eq!(cluster.bound(), "n");
}

#[test]
fn pods_of_other_schedulers_are_left_alone() {
    let mut cluster = Cluster::new().node(node("n"));
    let mut other = pod("p").build();
    other.spec.get_or_insert_default().scheduler_name = Some("mine".into());
    cluster.scheduler.put_pod(None, &Arc::new(other), cluster.now);
    assert!(cluster.next().is_none());
}

#[test]
fn an_uncordoned_node_helps_at_once_and_a_heartbeat_does_not() {
    let mut cluster = Cluster::new();
    let cordoned = Arc::new(node("n").unschedulable().build());
    cluster.scheduler.put_node(None, &cordoned, cluster.now);
    cluster.put(pod("p"));
    assert!(cluster.refused().message.contains("1 node(s) were unschedulable"));
    cluster.pass(20);
    cluster
        .scheduler
        .put_node(Some(&cordoned), &cordoned, cluster.now);
    assert!(cluster.next().is_none());
    cluster
        .scheduler
        .put_node(Some(&cordoned), &Arc::new(node("n").build()), cluster.now);
    assert_eq!(cluster.bound(), "n");
}

#[test]
fn equal_pods_get_the_remembered_refusal_until_something_changes() {
    let mut cluster = Cluster::new().node(sized("n", "1"));
    for name in ["a", "b"] {
        cluster.put(pod(name).container("2", "1Gi"));
    }
    let (first, second) = (cluster.refused().message, cluster.refused().message);
    assert_eq!(first, second);
    cluster.put_node(sized("big", "4"));
    assert_eq!(
        (cluster.bound(), cluster.bound()),
        ("big".to_owned(), "big".to_owned())
    );
}

#[test]
fn preemption_evicts_the_least_important_pods_and_keeps_the_room() {
    let mut cluster = Cluster::new().node(sized("n", "3"));
    for (name, priority) in [("low", 1), ("lower", 0), ("equal", 5)] {
        cluster.put(pod(name).container("1", "1Gi").priority(priority).on_node("n"));
    }
    cluster.put(pod("p").container("1", "1Gi").priority(5));
    let refused = cluster.refused();
    assert_eq!(refused.nominated.as_deref(), Some("n"));
    assert_eq!(refused.message, "0/1 nodes are available: 1 Insufficient cpu.");
    let preemption = refused.preemption.expect("a preemption");
    assert_eq!(
        preemption.victims.iter().map(|v| &*v.name).collect::<Vec<_>>(),
        ["lower"]
    );
    // Nothing was really removed yet.
    assert_eq!(cluster.scheduler.world.nodes.milli_cpu.free(0), 0);
    cluster.scheduler.preemption_done(&"p-uid".into(), true);
    cluster.delete("lower");
    // A newcomer of less importance does not get the room that was made.
    cluster.put(pod("thief").container("1", "1Gi").priority(4));
    cluster.pass(5);
    assert_eq!(cluster.bound(), "n");
    assert_eq!(cluster.scheduler.node_of("p-uid").map(|n| &**n), Some("n"));
    assert!(cluster.refused().message.contains("Insufficient cpu"));
}

#[test]
fn preemption_prefers_the_node_with_the_lesser_victims() {
    let mut cluster = Cluster::new().node(sized("a", "1")).node(sized("b", "1"));
    cluster.put(pod("x").container("1", "1Gi").priority(3).on_node("a"));
    cluster.put(pod("y").container("1", "1Gi").priority(2).on_node("b"));
    cluster.put(pod("p").container("1", "1Gi").priority(9));
    assert_eq!(cluster.refused().nominated.as_deref(), Some("b"));
}

#[test]
fn a_disruption_budget_is_broken_only_if_nothing_else_helps() {
    let mut cluster = Cluster::new().node(sized("a", "1")).node(sized("b", "1"));
    cluster.put(
        pod("guarded")
            .label("app", "db")
            .container("1", "1Gi")
            .on_node("a"),
    );
    cluster.put(pod("free").container("1", "1Gi").priority(1).on_node("b"));
    let selector = crate::selector::Selector::from_map(&crate::testing::labels(&[("app", "db")]));
    let budget = crate::framework::world::Budget {
        namespace: "default".into(),
        selector,
        disruptions_allowed: 0,
        disrupted: Vec::new(),
    };
    cluster
        .scheduler
        .world
        .budgets
        .insert("default/db".into(), budget);
    cluster.put(pod("p").container("1", "1Gi").priority(9));
    assert_eq!(cluster.refused().nominated.as_deref(), Some("b"));
}

#[test]
fn a_pod_may_be_told_not_to_preempt() {
    let mut cluster = Cluster::new().node(sized("n", "1"));
    cluster.put(pod("x").container("1", "1Gi").on_node("n"));
    cluster.put(pod("p").container("1", "1Gi").priority(9).never_preempts());
    let refused = cluster.refused();
    assert!(refused.preemption.is_none() && refused.nominated.is_none());
    assert!(
        refused
            .message
            .ends_with("preemption: not eligible due to preemptionPolicy=Never.")
    );
}

#[test]
fn preemption_also_solves_anti_affinity() {
    let mut cluster = Cluster::new().node(node("n").label("zone", "z"));
    cluster.put(pod("x").label("app", "web").on_node("n"));
    cluster.put(pod("p").priority(9).anti_affinity("zone", &[("app", "web")]));
    assert_eq!(cluster.refused().preemption.map(|p| p.victims.len()), Some(1));
}

#[test]
fn large_clusters_are_searched_in_part_and_in_turn() {
    let mut cluster = Cluster::new();
    for n in 0..1000 {
        cluster.put_node(node(&format!("n{n}")));
    }
    // 50 - 1000/125 = 42 percent.
    let mut seen = Vec::new();
    for n in 0..3 {
        cluster.put(pod(&format!("p{n}")).container("1", "1Gi"));
        match cluster.next() {
            Some(Outcome::Bind(binding)) => seen.push(binding.feasible_nodes),
            other => panic!("not bound: {other:?}"),
        }
    }
    assert_eq!(seen, [420, 420, 420]);
    assert_eq!(cluster.scheduler.next_start, 260);
}

#[test]
fn replicas_with_hard_spread_stay_even() {
    let mut cluster = Cluster::new()
        .node(node("a").label("zone", "a"))
        .node(node("b").label("zone", "b"))
        .node(node("c").label("zone", "c"));
    for n in 0..9 {
        let replica = pod(&format!("p{n}")).label("app", "web").container("1", "1Gi");
        cluster.put(replica.spread("zone", 1, "DoNotSchedule"));
        cluster.bound();
    }
    let counts: Vec<usize> = (0..3)
        .map(|row| cluster.scheduler.world.nodes.pods_on(row).len())
        .collect();
    assert_eq!(counts, [3, 3, 3]);
}

/// Random clusters, pods, failures and confirmations; what must never happen is checked after every step.
#[test]
fn no_node_is_ever_overcommitted_and_no_pod_is_bound_twice() {
    for seed in 1..=30 {
        let mut random = Random(seed * 7919);
        let mut cluster = Cluster::with_seed(seed);
        let mut bound: HashMap<String, String> = HashMap::new();
        let mut bindings = Vec::new();
        for step in 0..400 {
            match random.below(10) {
                0 => cluster.put_node(sized(
                    &format!("n{}", random.below(6)),
                    &format!("{}", 1 + random.below(4)),
                )),
                1..=4 => {
                    let cpu = format!("{}m", 100 * (1 + random.below(15)));
                    let priority = random.below(3) as i32;
                    cluster.put(
                        pod(&format!("p{step}"))
                            .container(&cpu, "100Mi")
                            .priority(priority),
                    );
                }
                5 if !bindings.is_empty() => {
                    let (name, node, cpu): (String, String, i64) =
                        bindings.swap_remove(random.below(bindings.len()));
                    if random.below(3) == 0 {
                        cluster
                            .scheduler
                            .bind_failed(&format!("{name}-uid").into(), "no", cluster.now);
                        bound.remove(&name);
                    } else if cluster.pods.contains_key(&name) {
                        let cpu = format!("{cpu}m");
                        cluster.put(pod(&name).container(&cpu, "100Mi").on_node(&node).version("2"));
                    }
                }
                6 if !cluster.pods.is_empty() => {
                    let mut names: Vec<String> = cluster.pods.keys().cloned().collect();
                    names.sort();
                    let name = names.swap_remove(random.below(names.len()));
                    cluster.delete(&name);
                    bound.remove(&name);
                    bindings.retain(|(n, _, _)| *n != name);
                }
                7 => cluster.pass(1 + random.below(20) as u64),
                _ => match cluster.next() {
                    Some(Outcome::Bind(b)) => {
                        let name = b.pod.name.to_string();
                        let twice = bound.insert(name.clone(), b.node.to_string());
                        assert_eq!(twice, None, "seed {seed} step {step}: {name} is bound twice");
                        // Nodes shrink below what runs on them, but no decision may choose such a node.
                        let over = cluster.scheduler.overcommitted();
                        assert!(
                            !over.contains(&b.node.to_string()),
                            "seed {seed} step {step}: {} is full",
                            b.node
                        );
                        bindings.push((name, b.node.to_string(), b.pod.requests.milli_cpu));
                    }
                    Some(Outcome::Refused(r)) => {
                        for victim in r.preemption.iter().flat_map(|p| &p.victims) {
                            assert!(
                                victim.priority < r.pod.priority,
                                "seed {seed} step {step}: an equal is evicted"
                            );
                        }
                        cluster.scheduler.preemption_done(&r.pod.uid, true);
                    }
                    _ => {}
                },
            }
        }
    }
}
