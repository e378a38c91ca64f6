use super::*;
use crate::config::{Configuration, build_profiles, complete};
use crate::framework::events::{Actions, Change, Kind};
use crate::testing::{PodBuilder, info, pod};

/// A queue with a clock that a test moves.
struct Story {
    queue: Queue,
    profiles: HashMap<String, Profile>,
    start: Instant,
    now: Instant,
}

impl Story {
    fn new() -> Self {
        let profiles = build_profiles(&complete(Configuration::default()).expect("valid")).expect("builds");
        let start = Instant::now();
        Self {
            queue: Queue::new(Settings::default(), start),
            profiles,
            start,
            now: start,
        }
    }

    fn profile(&self) -> &Profile {
        &self.profiles["default-scheduler"]
    }

    fn at(&mut self, seconds: f64) -> &mut Self {
        self.now = self.start + Duration::from_secs_f64(seconds);
        self.queue.flush(&self.profiles, self.now);
        self
    }

    fn add(&mut self, pod: PodBuilder) {
        self.queue
            .add(info(pod.build()), &self.profiles["default-scheduler"], self.now);
    }

    fn pop(&mut self) -> Option<String> {
        self.pop_whole().map(|queued| queued.info.name.to_string())
    }

    fn pop_whole(&mut self) -> Option<QueuedPod> {
        self.queue.pop(self.now)
    }

    fn refuse(&mut self, queued: QueuedPod, plugins: &[&'static str]) {
        let plugins = plugins.iter().copied().collect();
        self.queue
            .add_refused(queued, plugins, &self.profiles["default-scheduler"], self.now);
    }

    fn event(&mut self, kind: Kind, action: Actions) {
        self.queue.on_event(
            &self.profiles,
            &Event {
                kind,
                action,
                change: Change::Other,
            },
            self.now,
        );
    }

    fn pending(&self) -> [usize; 4] {
        let p = self.queue.pending();
        [p.active, p.backoff, p.unschedulable, p.gated]
    }
}

#[test]
fn pods_leave_by_priority_and_then_by_waiting_time() {
    let mut story = Story::new();
    story.add(pod("early"));
    story.at(0.1).add(pod("late"));
    story.at(0.2).add(pod("urgent").priority(10));
    story.at(0.2).add(pod("lazy").priority(-1));
    let order: Vec<String> = std::iter::from_fn(|| story.pop()).collect();
    assert_eq!(order, ["urgent", "early", "late", "lazy"]);
}

#[test]
fn a_refused_pod_waits_for_an_event_that_its_refuser_cares_for() {
    let mut story = Story::new();
    story.add(pod("p"));
    let queued = story.pop_whole().expect("queued");
    story.refuse(queued, &["NodeAffinity"]);
    assert_eq!(story.pending(), [0, 0, 1, 0]);
    story.at(20.0).event(Kind::AssignedPod, Actions::DELETE);
    assert_eq!(story.pop(), None);
    story.event(Kind::Node, Actions::NODE_LABEL);
    assert_eq!(story.pop().as_deref(), Some("p"));
}

#[test]
fn a_pod_that_was_just_refused_backs_off_but_not_while_the_scheduler_idles() {
    let mut story = Story::new();
    story.add(pod("p"));
    let queued = story.pop_whole().expect("queued");
    story.refuse(queued, &["NodeResourcesFit"]);
    story.event(Kind::Node, Actions::ADD);
    assert_eq!(story.pending(), [0, 1, 0, 0]);
    story.add(pod("other"));
    assert_eq!(story.pop().as_deref(), Some("other"));
    assert_eq!(story.pop().as_deref(), Some("p"));
}

#[test]
fn backoff_doubles_and_ends_at_a_whole_second() {
    let mut story = Story::new();
    story.add(pod("p"));
    // Waits of 1, 2, 4, 8, 10, 10 seconds, and up to one more for the window.
    for wait in [1.0, 2.0, 4.0, 8.0, 10.0, 10.0] {
        let queued = story.pop_whole().expect("queued");
        story.refuse(queued, &["NodeResourcesFit"]);
        story.event(Kind::Node, Actions::ADD);
        let since = (story.now - story.start).as_secs_f64();
        story.at(since + wait);
        assert_eq!(story.pending(), [0, 1, 0, 0], "after {wait} s");
        story.at((since + wait).floor() + 1.0);
        assert_eq!(story.pending(), [1, 0, 0, 0], "after {wait} s and the window");
    }
}

#[test]
fn a_pod_that_met_an_error_waits_even_if_the_scheduler_idles() {
    let mut story = Story::new();
    story.add(pod("p"));
    let queued = story.pop_whole().expect("queued");
    story.refuse(queued, &[]);
    assert_eq!((story.pop(), story.pending()), (None, [0, 1, 0, 0]));
    let wakeup = story.queue.next_wakeup().expect("a wakeup");
    story.now = wakeup;
    story.queue.flush(&story.profiles, wakeup);
    assert_eq!(story.pop().as_deref(), Some("p"));
}

#[test]
fn a_gated_pod_enters_when_its_last_gate_goes_and_not_by_other_events() {
    let mut story = Story::new();
    story.add(pod("p").gate("g"));
    assert_eq!(story.pending(), [0, 0, 0, 1]);
    story.event(Kind::Node, Actions::ADD);
    story.at(1000.0);
    assert_eq!(story.pending(), [0, 0, 0, 1]);
    let (old, new) = (info(pod("p").gate("g").build()), info(pod("p").build()));
    let change = Change::Pod {
        old: Some(&old),
        new: Some(&new),
    };
    let event = Event {
        kind: Kind::UnscheduledPod,
        action: Actions::POD_GATES_ELIMINATED,
        change,
    };
    story.queue.update(
        Arc::clone(&new),
        &story.profiles["default-scheduler"],
        &[event],
        story.now,
    );
    assert_eq!(story.pop().as_deref(), Some("p"));
}

#[test]
fn a_pod_that_nothing_helps_is_tried_again_after_five_minutes() {
    let mut story = Story::new();
    story.add(pod("p"));
    let queued = story.pop_whole().expect("queued");
    story.refuse(queued, &["NodeAffinity"]);
    story.at(299.0);
    assert_eq!(story.pending(), [0, 0, 1, 0]);
    assert!(story.queue.next_wakeup().expect("a wakeup") > story.now);
    story.at(301.0);
    assert_eq!(story.pop().as_deref(), Some("p"));
}

#[test]
fn removed_pods_are_nowhere() {
    let mut story = Story::new();
    story.add(pod("active"));
    story.add(pod("gated").gate("g"));
    story.queue.remove("active-uid");
    story.queue.remove("gated-uid");
    assert_eq!(
        (story.pending(), story.pop(), story.queue.next_wakeup()),
        ([0; 4], None, None)
    );
    assert!(story.profile().runs(Point::PreEnqueue, "SchedulingGates"));
}
