//! Which start of a CronJob is due, and when the next one is. No IO.

use super::schedule::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use std::time::Duration;

/// More missed starts than this hint at a wrong clock.
const MANY: i64 = 100;
/// Clocks differ by a little: waking too early would find nothing due.
const PADDING: Duration = Duration::from_millis(100);

#[derive(Debug, PartialEq)]
pub struct Due {
    /// Of the starts that were missed the last.
    pub at: Option<Timestamp>,
    pub missed_many: bool,
    since: Timestamp,
    missed: bool,
}

pub fn due(
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    within_deadline: bool,
) -> Result<Due, String> {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let mut since = cron
        .status
        .as_ref()
        .and_then(|s| s.last_schedule_time.as_ref())
        .map_or(created, |t| t.0);
    if let Some(deadline) = cron.spec.starting_deadline_seconds.filter(|_| within_deadline) {
        since = since.max(
            now.checked_sub(SignedDuration::from_secs(deadline))
                .unwrap_or(since),
        );
    }
    let never = || "time difference between two schedules is less than 1 second".to_owned();
    let first = schedule.next(since, zone).ok_or_else(never)?;
    if now < first {
        return Ok(Due {
            at: None,
            missed_many: false,
            since,
            missed: false,
        });
    }
    let second = schedule.next(first, zone).ok_or_else(never)?;
    if now < second {
        return Ok(Due {
            at: Some(first),
            missed_many: false,
            since,
            missed: false,
        });
    }
    let period = (second.as_second() - first.as_second()).max(1);
    let missed = (now.as_second() - first.as_second()) / period + 1;
    // Far in the past nothing is looked at one by one.
    let near = first
        .checked_add(SignedDuration::from_secs((missed - 2).max(0) * period))
        .unwrap_or(first);
    Ok(Due {
        at: last_before(schedule, zone, near, now),
        missed_many: missed > MANY,
        since,
        missed: true,
    })
}

fn last_before(schedule: &Schedule, zone: &TimeZone, from: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let starts = std::iter::successors(schedule.next(from, zone), |t| schedule.next(*t, zone));
    starts.take_while(|t| *t <= now).last()
}

pub fn until_next(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Duration> {
    let from = match due(cron, schedule, zone, now, false) {
        Ok(Due { at: Some(at), .. }) => at,
        Ok(Due {
            missed: false, since, ..
        }) => since,
        _ => now,
    };
    let next = schedule.next(from, zone)?;
    Some(next.duration_since(now).max(SignedDuration::ZERO).unsigned_abs() + PADDING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cron(created: &str, deadline: Option<i64>) -> CronJob {
        serde_json::from_value(json!({"metadata": {"name": "c", "creationTimestamp": created}, "spec": {"schedule": "", "startingDeadlineSeconds": deadline, "jobTemplate": {}}})).unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn the_last_missed_start_is_due() {
        let hourly = Schedule::parse("0 * * * *").unwrap();
        let of = |cron: &CronJob, now: &str| due(cron, &hourly, &TimeZone::UTC, at(now), true).unwrap();
        let plain = cron("2024-01-01T00:10:00Z", None);
        assert_eq!(of(&plain, "2024-01-01T00:50:00Z").at, None);
        assert_eq!(
            of(&plain, "2024-01-01T01:00:05Z").at,
            Some(at("2024-01-01T01:00:00Z"))
        );
        assert_eq!(
            of(&plain, "2024-01-01T04:30:00Z").at,
            Some(at("2024-01-01T04:00:00Z"))
        );
        let late = of(&plain, "2024-02-01T04:30:00Z");
        assert_eq!(
            (late.at, late.missed_many),
            (Some(at("2024-02-01T04:00:00Z")), true)
        );
        assert_eq!(
            of(&cron("2024-01-01T00:10:00Z", Some(600)), "2024-01-01T04:30:00Z").at,
            None
        );
        assert_eq!(
            until_next(&plain, &hourly, &TimeZone::UTC, at("2024-01-01T00:50:00Z")),
            Some(Duration::from_secs(600) + PADDING)
        );
        assert_eq!(
            until_next(&plain, &hourly, &TimeZone::UTC, at("2024-01-01T04:30:00Z")),
            Some(Duration::from_secs(1800) + PADDING)
        );
    }

    #[test]
    fn a_day_that_never_comes_is_an_error() {
        let never = Schedule::parse("59 23 31 2 *").unwrap();
        assert!(
            due(
                &cron("2024-01-01T00:10:00Z", None),
                &never,
                &TimeZone::UTC,
                at("2024-01-01T00:50:00Z"),
                true
            )
            .is_err()
        );
    }
}
