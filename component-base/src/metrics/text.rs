//! Prometheus text format 0.0.4.

use std::fmt::Write as _;
use std::sync::Arc;

use super::LabelValues;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `# HELP` and `# TYPE`.
pub fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    out.push_str("# HELP ");
    out.push_str(name);
    out.push(' ');
    escape(out, help, false);
    out.push_str("\n# TYPE ");
    out.push_str(name);
    out.push(' ');
    out.push_str(kind);
    out.push('\n');
}

/// A line of a family; `labels` and `values` pair up.
pub fn sample(out: &mut String, name: &str, labels: &[&str], values: &[&str], value: f64) {
    line(
        out,
        name,
        labels.iter().copied().zip(values.iter().copied()),
        value,
    );
}

pub(super) fn sample_of(out: &mut String, name: &str, labels: &[&str], values: &LabelValues, value: f64) {
    line(
        out,
        name,
        labels.iter().copied().zip(values.iter().map(AsRef::as_ref)),
        value,
    );
}

/// Upstream lists no family that has no series.
pub(super) fn family<V>(
    out: &mut String,
    name: &str,
    help: &str,
    kind: &str,
    series: Vec<(LabelValues, Arc<V>)>,
    mut each: impl FnMut(&mut String, &LabelValues, &V),
) {
    if series.is_empty() {
        return;
    }
    head(out, name, help, kind);
    for (labels, value) in &series {
        each(out, labels, value);
    }
}

pub(super) fn histogram(
    out: &mut String,
    name: &str,
    (labels, values): (&[&str], &LabelValues),
    bounds: &[f64],
    counts: &[u64],
    sum: f64,
) {
    let pairs = || labels.iter().copied().zip(values.iter().map(AsRef::as_ref));
    let bucket = format!("{name}_bucket");
    let mut total = 0;
    for (index, count) in counts.iter().enumerate() {
        total += count;
        let bound = bounds
            .get(index)
            .map_or("+Inf".to_owned(), |bound| number(*bound));
        line(
            out,
            &bucket,
            pairs().chain([("le", bound.as_str())]),
            total as f64,
        );
    }
    line(out, &format!("{name}_sum"), pairs(), sum);
    line(out, &format!("{name}_count"), pairs(), total as f64);
}

fn line<'a>(out: &mut String, name: &str, labels: impl Iterator<Item = (&'a str, &'a str)>, value: f64) {
    out.push_str(name);
    let mut open = '{';
    for (label, value) in labels {
        out.push(open);
        out.push_str(label);
        out.push_str("=\"");
        escape(out, value, true);
        out.push('"');
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    out.push(' ');
    out.push_str(&number(value));
    out.push('\n');
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

/// Go's `strconv.FormatFloat(v, 'g', -1, 64)`: exponents from 1e+06 on and below 1e-4.
pub(super) fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        return exponent(value);
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    write!(text, "{value}").ok();
    text
}

fn exponent(value: f64) -> String {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_look_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.005, "0.005"),
            (1e-5, "1e-05"),
            (524288.0, "524288"),
            (1048576.0, "1.048576e+06"),
            (1e21, "1e+21"),
            (2.5e-7, "2.5e-07"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(f64::INFINITY), "+Inf");
    }
}
