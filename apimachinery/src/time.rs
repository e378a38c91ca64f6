//! RFC 3339 in Kubernetes' two precisions. No clock: callers pass the time in.

use std::fmt;

/// Seconds and nanoseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanos: u32,
}

/// Go's zero time, 0001-01-01T00:00:00Z, which stands for "unset".
const GO_ZERO_SECONDS: i64 = -62_135_596_800;

const SECONDS_PER_DAY: i64 = 86_400;

impl Timestamp {
    /// Any RFC 3339 text that Go's `time.RFC3339` accepts, fraction included.
    pub fn parse(text: &str) -> Option<Timestamp> {
        read(text, Fraction::Optional).ok()
    }

    pub fn is_go_zero(self) -> bool {
        self.seconds == GO_ZERO_SECONDS && self.nanos == 0
    }

    /// `2006-01-02T15:04:05Z`, the form of `metav1.Time`.
    pub fn format(self) -> String {
        let (year, month, day) = civil(self.seconds.div_euclid(SECONDS_PER_DAY));
        let second = self.seconds.rem_euclid(SECONDS_PER_DAY);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }

    /// `2006-01-02T15:04:05.000000Z`, the form of `metav1.MicroTime`.
    pub fn format_micro(self) -> String {
        let mut text = self.format();
        text.pop();
        format!("{text}.{:06}Z", self.nanos / 1000)
    }
}

/// Go's complaint about a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeError {
    text: String,
    layout: &'static str,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    Expected { rest: String, element: &'static str },
    OutOfRange(&'static str),
    Extra(String),
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, layout) = (&self.text, self.layout);
        match &self.why {
            Why::Expected { rest, element } => {
                write!(
                    f,
                    "parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"
                )
            }
            Why::OutOfRange(what) => write!(f, "parsing time {text:?}: {what} out of range"),
            Why::Extra(rest) => write!(f, "parsing time {text:?}: extra text: {rest:?}"),
        }
    }
}

impl std::error::Error for TimeError {}

/// `text` in the form of `metav1.Time`; `None` is Go's zero time, printed as null.
pub(crate) fn canonical(text: &str) -> Result<Option<String>, TimeError> {
    let time = read(text, Fraction::Optional)?;
    Ok((!time.is_go_zero()).then(|| time.format()))
}

/// `text` in the form of `metav1.MicroTime`.
pub(crate) fn canonical_micro(text: &str) -> Result<Option<String>, TimeError> {
    let time = read(text, Fraction::SixDigits)?;
    Ok((!time.is_go_zero()).then(|| time.format_micro()))
}

#[derive(Clone, Copy, PartialEq)]
enum Fraction {
    Optional,
    SixDigits,
}

/// Walks `text` along the layout, so that errors name what Go would name.
struct Walk<'a> {
    rest: &'a str,
}

fn read(text: &str, fraction: Fraction) -> Result<Timestamp, TimeError> {
    let layout = match fraction {
        Fraction::Optional => "2006-01-02T15:04:05Z07:00",
        Fraction::SixDigits => "2006-01-02T15:04:05.000000Z07:00",
    };
    let mut walk = Walk { rest: text };
    walk.timestamp(fraction).map_err(|why| TimeError {
        text: text.to_owned(),
        layout,
        why,
    })
}

impl Walk<'_> {
    fn timestamp(&mut self, fraction: Fraction) -> Result<Timestamp, Why> {
        let year = self.digits(4, "2006")?;
        self.literal("-")?;
        let month = self.in_range(2, "01", 1..=12, "month")?;
        self.literal("-")?;
        let day = self.digits(2, "02")?;
        self.literal("T")?;
        let hour = self.in_range(2, "15", 0..=23, "hour")?;
        self.literal(":")?;
        let minute = self.in_range(2, "04", 0..=59, "minute")?;
        self.literal(":")?;
        let second = self.in_range(2, "05", 0..=59, "second")?;
        let nanos = self.fraction(fraction)?;
        let offset = self.zone()?;
        if !self.rest.is_empty() {
            return Err(Why::Extra(self.rest.to_owned()));
        }
        if day < 1 || day > days_in(year, month) {
            return Err(Why::OutOfRange("day"));
        }
        let seconds = days(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
        Ok(Timestamp { seconds, nanos })
    }

    fn expected(&self, element: &'static str) -> Why {
        Why::Expected {
            rest: self.rest.to_owned(),
            element,
        }
    }

    fn digits(&mut self, count: usize, element: &'static str) -> Result<i64, Why> {
        let digits = self
            .rest
            .get(..count)
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let value = digits
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.expected(element))?;
        self.rest = &self.rest[count..];
        Ok(value)
    }

    fn in_range(
        &mut self,
        count: usize,
        element: &'static str,
        range: std::ops::RangeInclusive<i64>,
        what: &'static str,
    ) -> Result<i64, Why> {
        let value = self.digits(count, element)?;
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(Why::OutOfRange(what))
        }
    }

    fn literal(&mut self, text: &'static str) -> Result<(), Why> {
        self.rest = self.rest.strip_prefix(text).ok_or_else(|| self.expected(text))?;
        Ok(())
    }

    fn fraction(&mut self, fraction: Fraction) -> Result<u32, Why> {
        let digits = self
            .rest
            .strip_prefix('.')
            .map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        let wanted = match fraction {
            Fraction::Optional if digits == 0 => return Ok(0),
            Fraction::Optional => digits,
            Fraction::SixDigits if digits < 6 => return Err(self.expected(".000000")),
            Fraction::SixDigits => 6,
        };
        let text = &self.rest[1..=wanted];
        let nanos = text
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(9)
            .fold(0, |n, b| n * 10 + u32::from(b - b'0'));
        self.rest = &self.rest[1 + wanted..];
        Ok(nanos)
    }

    fn zone(&mut self) -> Result<i64, Why> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let sign = match self.rest.bytes().next() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.expected("Z07:00")),
        };
        let (hours, minutes) = (two(self.rest, 1), two(self.rest, 4));
        match (hours, self.rest.get(3..4), minutes) {
            (Some(hours), Some(":"), Some(minutes)) if hours <= 24 && minutes < 60 => {
                self.rest = &self.rest[6..];
                Ok(sign * (hours * 3600 + minutes * 60))
            }
            _ => Err(self.expected("Z07:00")),
        }
    }
}

fn two(text: &str, at: usize) -> Option<i64> {
    text.get(at..at + 2)
        .filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970 of a date of the proleptic Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The date of a day since 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_in_utc() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T12:00:00+02:00", 1_709_200_800),
            ("2038-01-19T03:14:08.999Z", 2_147_483_648),
            ("1969-12-31T23:59:59Z", -1),
        ];
        for (text, seconds) in cases {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!(time.seconds, seconds, "{text}");
            assert_eq!(Timestamp::parse(&time.format()).unwrap().seconds, seconds);
        }
        assert_eq!(
            Timestamp {
                seconds: 0,
                nanos: 123_456_789
            }
            .format_micro(),
            "1970-01-01T00:00:00.123456Z"
        );
    }

    #[test]
    fn every_day_of_eight_centuries_round_trips() {
        for day in -150_000..150_000 {
            let (y, m, d) = civil(day);
            assert_eq!(days(y, m, d), day);
        }
    }

    #[test]
    fn errors_read_as_gos() {
        assert_eq!(
            canonical("tomorrow").unwrap_err().to_string(),
            r#"parsing time "tomorrow" as "2006-01-02T15:04:05Z07:00": cannot parse "tomorrow" as "2006""#
        );
        assert_eq!(
            canonical("2024-13-01T00:00:00Z").unwrap_err().to_string(),
            r#"parsing time "2024-13-01T00:00:00Z": month out of range"#
        );
        assert_eq!(
            canonical_micro("2024-01-01T00:00:00Z").unwrap_err().to_string(),
            r#"parsing time "2024-01-01T00:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#
        );
        assert!(canonical("2023-02-29T00:00:00Z").is_err());
    }

    #[test]
    fn gos_zero_time_is_unset() {
        assert_eq!(canonical("0001-01-01T00:00:00Z"), Ok(None));
    }
}
