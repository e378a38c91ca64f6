//! Schedules as robfig/cron's standard parser reads them: five fields, names, descriptors and `@every`.

use component_base::flags::parse_duration;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// A schedule that fits no day in this time fits none at all (the 31st of February).
const HORIZON_YEARS: i16 = 5;
const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    Fields(Fields),
    Every(SignedDuration),
}

/// Bit n: the value n fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Where both days are named, one of them is enough.
    any_day: bool,
    any_weekday: bool,
}

struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

impl Schedule {
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(period) = text.strip_prefix("@every ") {
            let period =
                parse_duration(period.trim()).map_err(|e| format!("failed to parse duration {text}: {e}"))?;
            // Less than a second would be no period.
            return Ok(Schedule::Every(SignedDuration::from_secs(
                period.as_secs().max(1).min(i64::MAX as u64) as i64,
            )));
        }
        let spelled = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => return Err(format!("unrecognized descriptor: {other}")),
            other => other,
        };
        let fields: Vec<_> = spelled.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "expected exactly 5 fields, found {}: [{text}]",
                fields.len()
            ));
        };
        let (day, any_day) = field(
            day,
            &Bounds {
                low: 1,
                high: 31,
                names: &[],
            },
        )?;
        let (weekday, any_weekday) = field(
            weekday,
            &Bounds {
                low: 0,
                high: 6,
                names: WEEKDAYS,
            },
        )?;
        Ok(Schedule::Fields(Fields {
            minute: field(
                minute,
                &Bounds {
                    low: 0,
                    high: 59,
                    names: &[],
                },
            )?
            .0,
            hour: field(
                hour,
                &Bounds {
                    low: 0,
                    high: 23,
                    names: &[],
                },
            )?
            .0,
            month: field(
                month,
                &Bounds {
                    low: 1,
                    high: 12,
                    names: MONTHS,
                },
            )?
            .0,
            day,
            weekday,
            any_day,
            any_weekday,
        }))
    }

    /// The first time after `time`.
    pub fn next(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(period) => Timestamp::from_second(time.as_second())
                .ok()?
                .checked_add(*period)
                .ok(),
            Schedule::Fields(fields) => fields.next(time, zone),
        }
    }
}

/// The values, and whether they are all of them by a star.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut star) = (0, false);
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (part_bits, part_star) = range(part, bounds)?;
        bits |= part_bits;
        star |= part_star;
    }
    if bits == 0 {
        Err(format!("empty field: {text:?}"))
    } else {
        Ok((bits, star))
    }
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (values, step) = text
        .split_once('/')
        .map_or((text, None), |(values, step)| (values, Some(step)));
    let star = matches!(values, "*" | "?");
    let (start, end) = match values.split_once('-') {
        _ if star => (bounds.low, bounds.high),
        Some((start, end)) => (value(start, bounds)?, value(end, bounds)?),
        // A single value with a step goes on to the end.
        None => {
            let start = value(values, bounds)?;
            (start, if step.is_some() { bounds.high } else { start })
        }
    };
    let step: u32 = step
        .map_or(Ok(1), str::parse)
        .map_err(|_| format!("failed to parse int from {text}"))?;
    if start < bounds.low || end > bounds.high {
        return Err(format!("value outside of {}-{}: {text}", bounds.low, bounds.high));
    }
    if start > end || step == 0 {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}), or a step of zero: {text}"
        ));
    }
    let bits = (start..=end)
        .step_by(step as usize)
        .fold(0, |bits, n| bits | 1u64 << n);
    Ok((bits, star && step == 1))
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let name = text.to_ascii_lowercase();
    match bounds.names.iter().position(|n| *n == name) {
        Some(at) => Ok(at as u32 + bounds.low),
        None => text
            .parse()
            .map_err(|_| format!("failed to parse int from {text}")),
    }
}

impl Fields {
    /// Walks forward in the zone's clock; an hour that a change of the clock skips has no times, one that it repeats has them twice.
    fn next(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = time.as_second().div_euclid(60) * 60 + 60;
        let mut at = Timestamp::from_second(minute).ok()?.to_zoned(zone.clone());
        let last_year = at.year() + HORIZON_YEARS;
        while at.year() <= last_year {
            at = match &at {
                z if !has(self.month, z.month()) => z
                    .first_of_month()
                    .ok()?
                    .checked_add(1.month())
                    .ok()?
                    .start_of_day()
                    .ok()?,
                z if !self.has_day(z) => z.tomorrow().ok()?.start_of_day().ok()?,
                z if !has(self.hour, z.hour()) => {
                    z.checked_add((60 - i64::from(z.minute())).minutes()).ok()?
                }
                z if !has(self.minute, z.minute()) => z.checked_add(1.minute()).ok()?,
                z => return Some(z.timestamp()),
            };
        }
        None
    }

    fn has_day(&self, at: &Zoned) -> bool {
        let day = has(self.day, at.day());
        let weekday = has(self.weekday, at.weekday().to_sunday_zero_offset());
        if self.any_day || self.any_weekday {
            day && weekday
        } else {
            day || weekday
        }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|n| bits >> n & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        Schedule::parse(schedule)
            .unwrap()
            .next(after.parse().unwrap(), &TimeZone::UTC)
            .map(|t| t.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn times_follow_the_fields() {
        assert_eq!(next("* * * * *", "2024-01-01T00:00:30Z"), "2024-01-01T00:01:00Z");
        assert_eq!(
            next("*/15 * * * *", "2024-01-01T00:46:00Z"),
            "2024-01-01T01:00:00Z"
        );
        assert_eq!(
            next("30 6-16/4 * * 1-5", "2024-01-05T14:30:00Z"),
            "2024-01-08T06:30:00Z"
        );
        assert_eq!(next("0 0 29 2 *", "2024-03-01T00:00:00Z"), "2028-02-29T00:00:00Z");
        assert_eq!(next("59 23 31 2 *", "2024-03-01T00:00:00Z"), "");
        assert_eq!(
            next("0 0 13 * FRI", "2024-01-06T00:00:00Z"),
            "2024-01-12T00:00:00Z"
        );
        assert_eq!(next("@monthly", "2024-12-01T00:00:00Z"), "2025-01-01T00:00:00Z");
        assert_eq!(next("@every 90s", "2024-01-01T00:00:00Z"), "2024-01-01T00:01:30Z");
        assert_eq!(
            next("0 0 1 jan,jul ?", "2024-01-01T00:00:00Z"),
            "2024-07-01T00:00:00Z"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "* * * *",
            "60 * * * *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "x * * * *",
            "@never",
            "@every soon",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_hour_that_the_clock_skips_has_no_times() {
        let zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        let schedule = Schedule::parse("30 2 * * *").unwrap();
        let next = schedule
            .next("2024-03-09T08:00:00Z".parse().unwrap(), &zone)
            .unwrap();
        assert_eq!(next.to_string(), "2024-03-11T06:30:00Z");
    }
}
