//! When to probe, and what a run of results means. Takes the time from its caller.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Probe;

use super::{ContainerView, ProbeKind, Verdict};
use crate::backoff::Nanos;

const DEFAULT_PERIOD_SECONDS: i32 = 10;
const DEFAULT_FAILURE_THRESHOLD: i32 = 3;

pub struct View {
    pub container: Option<ContainerView>,
    /// Its startup probe, if any, has succeeded.
    pub started: bool,
    /// The API already knew this very incarnation as ready: a restarted kubelet does not take it out of its services.
    pub was_ready: bool,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    /// A new incarnation: this is what holds until a probe says more.
    Begin {
        id: String,
        verdict: Verdict,
    },
    /// The incarnation that was probed no longer runs.
    Gone {
        id: String,
    },
    Probe {
        id: String,
        ip: Option<String>,
    },
    WaitUntil(Instant),
    WaitForChange,
}

pub struct Schedule {
    kind: ProbeKind,
    period: Duration,
    initial_delay: Duration,
    failure_threshold: i32,
    success_threshold: i32,
    id: String,
    ran: bool,
    gone: bool,
    /// A liveness or startup probe that failed rests until the container is another one.
    on_hold: bool,
    not_before: Option<Instant>,
    last: Option<Verdict>,
    run: i32,
}

fn seconds(n: Option<i32>, default: i32) -> Duration {
    Duration::from_secs(u64::try_from(n.filter(|n| *n > 0).unwrap_or(default)).unwrap_or(0))
}

impl Schedule {
    pub fn new(kind: ProbeKind, probe: &Probe) -> Self {
        Self {
            kind,
            period: seconds(probe.period_seconds, DEFAULT_PERIOD_SECONDS),
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            failure_threshold: probe
                .failure_threshold
                .unwrap_or(DEFAULT_FAILURE_THRESHOLD)
                .max(1),
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            id: String::new(),
            ran: false,
            gone: false,
            on_hold: false,
            not_before: None,
            last: None,
            run: 0,
        }
    }

    pub fn step(&mut self, view: &View, now: Instant, unix_now: Nanos) -> Step {
        let Some(container) = &view.container else {
            return Step::WaitForChange;
        };
        if container.id != self.id {
            return self.begin(container.id.clone(), view.was_ready);
        }
        if !container.running {
            // Made and not started yet is not gone; and what is gone needs no liveness probe to be restarted.
            if self.gone || !self.ran || self.kind != ProbeKind::Readiness {
                return Step::WaitForChange;
            }
            self.gone = true;
            return Step::Gone { id: self.id.clone() };
        }
        self.ran = true;
        let waits_for_startup = !view.started && self.kind != ProbeKind::Startup;
        let startup_is_over = view.started && self.kind == ProbeKind::Startup;
        if self.on_hold || waits_for_startup || startup_is_over {
            return Step::WaitForChange;
        }
        let age =
            Duration::from_nanos(u64::try_from(unix_now.saturating_sub(container.started_at)).unwrap_or(0));
        if age < self.initial_delay {
            return Step::WaitUntil(now + (self.initial_delay - age));
        }
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Step::WaitUntil(at);
        }
        self.not_before = Some(now + self.period);
        Step::Probe {
            id: self.id.clone(),
            ip: container.pod_ip.clone(),
        }
    }

    fn begin(&mut self, id: String, was_ready: bool) -> Step {
        self.id.clone_from(&id);
        (self.ran, self.gone, self.on_hold, self.run) = (false, false, false, 0);
        (self.not_before, self.last) = (None, None);
        let verdict = match self.kind {
            ProbeKind::Liveness => Verdict::Success,
            ProbeKind::Readiness if was_ready => Verdict::Success,
            ProbeKind::Readiness => Verdict::Failure,
            ProbeKind::Startup => Verdict::Unknown,
        };
        Step::Begin { id, verdict }
    }

    /// `None` in: the probe itself could not be made. Some out: enough of the same in a row.
    pub fn record(&mut self, outcome: Option<Verdict>, now: Instant) -> Option<Verdict> {
        self.not_before = self.not_before.map(|at| at.max(now));
        let outcome = outcome?;
        self.run = if self.last == Some(outcome) {
            self.run + 1
        } else {
            1
        };
        self.last = Some(outcome);
        let threshold = if outcome == Verdict::Failure {
            self.failure_threshold
        } else {
            self.success_threshold
        };
        if self.run < threshold {
            return None;
        }
        if outcome == Verdict::Failure && self.kind != ProbeKind::Readiness {
            self.on_hold = true;
            self.run = 0;
        }
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(id: &str, started: bool) -> View {
        let container = ContainerView {
            id: id.into(),
            running: true,
            started_at: 0,
            pod_ip: None,
        };
        View {
            container: Some(container),
            started,
            was_ready: false,
        }
    }

    fn schedule(kind: ProbeKind) -> Schedule {
        let probe = Probe {
            initial_delay_seconds: Some(5),
            period_seconds: Some(10),
            failure_threshold: Some(2),
            ..Default::default()
        };
        let mut s = Schedule::new(kind, &probe);
        assert!(matches!(
            s.step(&running("a", true), Instant::now(), 0),
            Step::Begin { .. }
        ));
        s
    }

    const S: Nanos = 1_000_000_000;

    #[test]
    fn the_first_probe_comes_when_the_initial_delay_is_over_and_then_every_period() {
        let mut s = schedule(ProbeKind::Readiness);
        let t = Instant::now();
        assert_eq!(
            s.step(&running("a", true), t, 2 * S),
            Step::WaitUntil(t + Duration::from_secs(3))
        );
        assert!(matches!(
            s.step(&running("a", true), t, 5 * S),
            Step::Probe { .. }
        ));
        assert_eq!(
            s.step(&running("a", true), t, 6 * S),
            Step::WaitUntil(t + Duration::from_secs(10))
        );
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let mut s = schedule(ProbeKind::Readiness);
        let t = Instant::now();
        assert_eq!(s.record(Some(Verdict::Failure), t), None);
        assert_eq!(s.record(Some(Verdict::Success), t), Some(Verdict::Success));
        assert_eq!(s.record(Some(Verdict::Failure), t), None);
        assert_eq!(s.record(None, t), None);
        assert_eq!(s.record(Some(Verdict::Failure), t), Some(Verdict::Failure));
    }

    #[test]
    fn a_liveness_probe_that_failed_rests_until_the_next_incarnation() {
        let mut s = schedule(ProbeKind::Liveness);
        let t = Instant::now();
        s.record(Some(Verdict::Failure), t);
        assert_eq!(s.record(Some(Verdict::Failure), t), Some(Verdict::Failure));
        assert_eq!(s.step(&running("a", true), t, 60 * S), Step::WaitForChange);
        assert_eq!(
            s.step(&running("b", true), t, 60 * S),
            Step::Begin {
                id: "b".into(),
                verdict: Verdict::Success
            }
        );
        assert!(matches!(
            s.step(&running("b", true), t, 60 * S),
            Step::Probe { .. }
        ));
    }

    #[test]
    fn readiness_waits_for_startup_and_startup_ends_with_success() {
        let t = Instant::now();
        let mut readiness = schedule(ProbeKind::Readiness);
        assert_eq!(
            readiness.step(&running("a", false), t, 60 * S),
            Step::WaitForChange
        );
        let mut startup = schedule(ProbeKind::Startup);
        assert!(matches!(
            startup.step(&running("a", false), t, 60 * S),
            Step::Probe { .. }
        ));
        assert_eq!(startup.step(&running("a", true), t, 60 * S), Step::WaitForChange);
    }

    #[test]
    fn a_container_that_stopped_is_not_ready() {
        let mut s = schedule(ProbeKind::Readiness);
        s.step(&running("a", true), Instant::now(), S);
        let stopped = View {
            container: Some(ContainerView {
                id: "a".into(),
                running: false,
                started_at: 0,
                pod_ip: None,
            }),
            started: false,
            was_ready: false,
        };
        assert_eq!(s.step(&stopped, Instant::now(), S), Step::Gone { id: "a".into() });
        assert_eq!(s.step(&stopped, Instant::now(), S), Step::WaitForChange);
    }

    #[test]
    fn a_container_that_is_made_and_not_started_yet_has_not_failed() {
        for kind in super::super::KINDS {
            let mut s = schedule(kind);
            let made = View {
                container: Some(ContainerView {
                    id: "a".into(),
                    running: false,
                    started_at: 0,
                    pod_ip: None,
                }),
                started: false,
                was_ready: false,
            };
            assert_eq!(s.step(&made, Instant::now(), S), Step::WaitForChange);
        }
    }
}
