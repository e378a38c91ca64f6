//! When the driver wakes, and what is due then: ticks, commits that followers were not told of, questions that few were asked.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use component_base::allocator;

use super::{Driver, Event, Outside};
use crate::clock::uptime_ms;

/// Whoever is asked first whether this member leads answers within this time, or the others are asked too.
const ANSWER_WITHIN: Duration = Duration::from_millis(2);
/// Followers hear so soon of a commit, if nothing else is sent to them first.
const TELL_WITHIN: Duration = Duration::from_millis(1);

/// What the driver remembers of time.
pub struct Pace {
    pub last_tick: Instant,
    woke: Instant,
    last_proposal: Option<Instant>,
    /// Followers are to hear of a commit.
    untold_since: Option<Instant>,
    /// A question waits for those who were asked first.
    spared_since: Option<Instant>,
}

impl Pace {
    pub fn new(now: Instant) -> Pace {
        Pace {
            last_tick: now,
            woke: now,
            last_proposal: None,
            untold_since: None,
            spared_since: None,
        }
    }

    /// Since when `is_open` has held without a break.
    fn note(since: &mut Option<Instant>, is_open: bool) {
        *since = is_open.then(|| since.unwrap_or_else(Instant::now));
    }
}

fn is_due(since: Option<Instant>, within: Duration) -> bool {
    since.is_some_and(|since| since.elapsed() >= within)
}

impl<O: Outside> Driver<O> {
    /// Until something has happened or a tick is due; then what has happened. Whoever asks after a stall is answered once the leases have been
    /// extended by it.
    pub fn wait(&mut self, batch: &mut Vec<Event>) {
        let due = [
            self.pace.untold_since.map(|since| since + TELL_WITHIN),
            self.pace.spared_since.map(|since| since + ANSWER_WITHIN),
        ];
        let tick = self.pace.last_tick + self.tick;
        let until = due.into_iter().flatten().fold(tick, Instant::min);
        let wait = until.saturating_duration_since(Instant::now());
        self.outside.wait(&self.events, batch, wait);
        // One look at the clock: a stall between two looks would be nobody's.
        self.woken(Instant::now());
        self.judge_pace(batch);
        if is_due(self.pace.spared_since, ANSWER_WITHIN) && self.node.ask_spared() {
            self.pace.spared_since = None;
            self.work();
            self.outside.flush();
        }
    }

    /// Where proposals follow each other closely the next one tells of the commit of the one before.
    fn judge_pace(&mut self, batch: &[Event]) {
        if batch.iter().any(|event| matches!(event, Event::Propose(_))) {
            let now = Instant::now();
            let last = self.pace.last_proposal.replace(now);
            self.lazy = last.is_some_and(|last| now - last < TELL_WITHIN);
        } else if is_due(self.pace.untold_since, TELL_WITHIN) {
            self.lazy = false;
        }
    }

    pub fn woken(&mut self, now: Instant) {
        self.pace.woke = now;
        let since = now - self.pace.last_tick;
        if since >= self.election {
            self.outside.stalled(since - self.tick);
        }
    }

    /// What is due since this thread woke.
    pub fn tick_if_due(&mut self) {
        if self.pace.woke - self.pace.last_tick < self.tick {
            return;
        }
        self.pace.last_tick = self.pace.woke;
        self.on_tick();
        self.outside.flush();
        self.status
            .last_tick_ms
            .store(uptime_ms(self.pace.woke), Ordering::SeqCst);
        allocator::collect();
    }

    pub(super) fn note_waits(&mut self) {
        Pace::note(&mut self.pace.untold_since, self.lazy && self.node.has_untold());
        Pace::note(&mut self.pace.spared_since, self.node.has_spared());
    }
}
