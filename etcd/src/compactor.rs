//! Automatic compaction: `--auto-compaction-mode` and `--auto-compaction-retention`. Which revision, and when, is decided without a clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::flags::parse_duration;
use etcd_api::etcdserverpb::{CompactionRequest, InternalRaftRequest};
use tracing::{info, warn};

use crate::server::EtcdServer;

const HOUR: Duration = Duration::from_secs(3600);
/// How often etcd looks in revision mode.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Revisions are noted so many times in a compaction's interval.
const SAMPLES: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Keep this much time.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// None when it is off.
pub fn parse(mode: &str, retention: &str) -> Result<Option<Mode>> {
    if !["periodic", "revision"].contains(&mode) {
        bail!(
            "unknown auto-compaction-mode {mode:?}: --auto-compaction-mode is \"periodic\" or \"revision\""
        );
    }
    let number: Option<i64> = retention.parse().ok();
    if number == Some(0) || retention.is_empty() {
        return Ok(None);
    }
    if number.is_some_and(|number| number < 0) {
        bail!("--auto-compaction-retention: {retention} is negative");
    }
    match (mode, number) {
        ("revision", Some(revisions)) => Ok(Some(Mode::Revision(revisions))),
        ("revision", None) => {
            bail!("--auto-compaction-retention: {retention:?} is not a number of revisions")
        }
        (_, Some(hours)) => Ok(Some(Mode::Periodic(
            HOUR * u32::try_from(hours).context("--auto-compaction-retention")?,
        ))),
        (_, None) => {
            let period = parse_duration(retention)
                .map_err(|error| anyhow::anyhow!("--auto-compaction-retention: {error}"))?;
            Ok((!period.is_zero()).then_some(Mode::Periodic(period)))
        }
    }
}

/// Notes the revision at each step and says what to compact.
pub struct Schedule {
    mode: Mode,
    /// Oldest first; as many as make up the retention.
    noted: VecDeque<i64>,
    steps: u32,
    last: i64,
}

impl Schedule {
    pub fn new(mode: Mode) -> Self {
        Schedule {
            mode,
            noted: VecDeque::new(),
            steps: 0,
            last: 0,
        }
    }

    /// Time between two steps.
    pub fn interval(&self) -> Duration {
        match self.mode {
            Mode::Revision(_) => REVISION_INTERVAL,
            Mode::Periodic(period) => (period.min(HOUR) / SAMPLES).max(Duration::from_millis(1)),
        }
    }

    /// At each interval; returns the revision to compact at.
    pub fn step(&mut self, current: i64) -> Option<i64> {
        let wanted = match self.mode {
            Mode::Revision(keep) => current - keep,
            Mode::Periodic(period) => self.step_periodic(period, current)?,
        };
        if wanted <= self.last.max(0) {
            return None;
        }
        self.last = wanted;
        Some(wanted)
    }

    fn step_periodic(&mut self, period: Duration, current: i64) -> Option<i64> {
        let kept = (period.as_millis() / self.interval().as_millis().max(1)) as usize;
        self.noted.push_back(current);
        if self.noted.len() <= kept {
            return None;
        }
        let oldest = self.noted.pop_front()?;
        self.steps += 1;
        (self.steps % SAMPLES == 1).then_some(oldest)
    }
}

pub async fn run(server: Arc<EtcdServer>, mode: Mode) {
    let mut schedule = Schedule::new(mode);
    loop {
        tokio::time::sleep(schedule.interval()).await;
        let Some(revision) = schedule.step(server.store().current()) else {
            continue;
        };
        if !server.raft.is_leader.load(Ordering::Relaxed) || revision <= server.store().compacted() {
            continue;
        }
        let compaction = CompactionRequest {
            revision,
            physical: false,
        };
        match server
            .propose(InternalRaftRequest {
                compaction: Some(compaction),
                ..Default::default()
            })
            .await
        {
            Ok(_) => info!(revision, "completed auto compaction"),
            Err(error) => warn!(revision, error = %error, "failed auto compaction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_as_etcd_reads_it() {
        assert_eq!(parse("periodic", "0").unwrap(), None);
        assert_eq!(parse("periodic", "8").unwrap(), Some(Mode::Periodic(8 * HOUR)));
        assert_eq!(
            parse("periodic", "5m").unwrap(),
            Some(Mode::Periodic(Duration::from_secs(300)))
        );
        assert_eq!(parse("revision", "1000").unwrap(), Some(Mode::Revision(1000)));
        for (mode, retention) in [
            ("revision", "5m"),
            ("periodic", "x"),
            ("yearly", "1"),
            ("periodic", "-1"),
        ] {
            assert!(parse(mode, retention).is_err(), "{mode} {retention}");
        }
    }

    #[test]
    fn the_last_revisions_are_kept() {
        let mut schedule = Schedule::new(Mode::Revision(100));
        assert_eq!(
            [
                schedule.step(50),
                schedule.step(150),
                schedule.step(150),
                schedule.step(260)
            ],
            [None, Some(50), None, Some(160)]
        );
    }

    #[test]
    fn a_period_passes_before_its_revisions_go() {
        let mut schedule = Schedule::new(Mode::Periodic(HOUR));
        let compacted: Vec<(i64, i64)> = (1..=40)
            .filter_map(|step| schedule.step(step * 10).map(|revision| (step, revision)))
            .collect();
        assert_eq!(compacted, [(11, 10), (21, 110), (31, 210)]);
    }
}
