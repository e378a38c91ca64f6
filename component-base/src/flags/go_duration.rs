//! Go's durations: `1h0m0s`, `300ms`, `1.5h`, `0`.

use std::time::Duration;

const UNITS: &[(&str, i128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Negative durations read as zero: upstream treats them as "at once" or "disabled".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let nanos = parse_signed(text)?.max(0);
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

pub(super) fn parse_signed(text: &str) -> Result<i128, String> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(format!("time: invalid duration {text:?}"));
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (nanos, after) = element(rest, text)?;
        total = total.saturating_add(nanos);
        rest = after;
    }
    if total > i128::from(i64::MAX) {
        return Err(format!("time: invalid duration {text:?}"));
    }
    Ok(if negative { -total } else { total })
}

/// One number with its unit.
fn element<'a>(rest: &'a str, whole: &str) -> Result<(i128, &'a str), String> {
    let digits = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(|| format!("time: missing unit in duration {whole:?}"))?;
    let (number, after) = rest.split_at(digits);
    let end = after
        .find(|c: char| c.is_ascii_digit() || c == '.')
        .unwrap_or(after.len());
    let (unit, after) = after.split_at(end);
    let scale = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale);
    let scale = scale.ok_or_else(|| format!("time: unknown unit {unit:?} in duration {whole:?}"))?;
    let nanos = scaled(number, scale).ok_or_else(|| format!("time: invalid duration {whole:?}"))?;
    Ok((nanos, after))
}

fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 || fraction.contains('.') {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(15)];
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    whole
        .checked_mul(scale)?
        .checked_add(part * scale / 10i128.pow(fraction.len() as u32))
}

/// `1h0m0s`, `1.5s`, `300ms`, `0s`: as Go's `Duration.String`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, scale) = match nanos {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(nanos, scale));
    }
    let seconds = nanos / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn decimal(value: u128, scale: u128) -> String {
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = scale.ilog10() as usize;
    format!("{whole}.{}", format!("{fraction:0digits$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_parses_is_parsed_and_printed_back() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("300ms", 300_000_000, "300ms"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("1h0m0s", 3_600_000_000_000, "1h0m0s"),
            ("2m0.5s", 120_500_000_000, "2m0.5s"),
            ("10us", 10_000, "10µs"),
            ("87600h0m0s", 315_360_000_000_000_000, "87600h0m0s"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration.as_nanos(), nanos, "{text}");
            assert_eq!(format_duration(duration), printed);
        }
    }

    #[test]
    fn what_go_refuses_is_refused_with_its_words() {
        assert_eq!(
            parse_duration("5").unwrap_err(),
            "time: missing unit in duration \"5\""
        );
        assert_eq!(
            parse_duration("5x").unwrap_err(),
            "time: unknown unit \"x\" in duration \"5x\""
        );
        assert_eq!(parse_duration("").unwrap_err(), "time: invalid duration \"\"");
        assert!(parse_duration("1.2.3s").is_err());
        assert!(parse_duration("99999999999999999h").is_err());
    }
}
