//! The small texts that cells are made of.

use apimachinery::meta::Meta;
use apimachinery::time::Timestamp;
use apimachinery::value::Value;

pub const NONE: &str = "<none>";
pub const UNKNOWN: &str = "<unknown>";
pub const UNSET: &str = "<unset>";

/// Entries shown before "+ n more...".
const MAX_LISTED: usize = 3;

pub struct Row<'a> {
    pub object: &'a Value,
    /// Unix seconds.
    pub now: i64,
}

impl Row<'_> {
    pub fn name(&self) -> Value {
        self.object.name().into()
    }

    pub fn age(&self) -> Value {
        self.since(self.object.creation_timestamp()).into()
    }

    /// How long ago a time was.
    pub fn since(&self, time: &str) -> String {
        seconds(time).map_or_else(|| UNKNOWN.to_owned(), |at| human_duration(self.now - at))
    }

    pub fn int(&self, path: &str) -> Value {
        self.object.int_at(path).unwrap_or_default().into()
    }

    pub fn text(&self, path: &str) -> Value {
        self.object.str_at(path).into()
    }

    pub fn text_or(&self, path: &str, absent: &str) -> Value {
        or(self.object.str_at(path), absent).into()
    }

    pub fn is_deleting(&self) -> bool {
        self.object.deletion_timestamp().is_some()
    }

    /// Names and images of the containers at `path`, and the label selector at `selector`.
    pub fn containers(&self, path: &str) -> [Value; 2] {
        let containers = self.object.list_at(path);
        ["name", "image"].map(|key| {
            containers
                .iter()
                .map(|c| c.str_at(key))
                .collect::<Vec<_>>()
                .join(",")
                .into()
        })
    }
}

pub fn or<'a>(text: &'a str, absent: &'a str) -> &'a str {
    if text.is_empty() { absent } else { text }
}

pub fn seconds(time: &str) -> Option<i64> {
    if time.is_empty() {
        None
    } else {
        Timestamp::parse(time).map(|t| t.seconds)
    }
}

/// Two units at most, the second only where it matters: 90s, 5m10s, 3h5m, 4d2h, 300d, 2y5d.
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 120 => format!("{s}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

/// `a=1,b=2`, or `<none>`.
pub fn labels(map: Option<&Value>) -> String {
    let mut pairs: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|m| m.iter())
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() {
        NONE.to_owned()
    } else {
        pairs.join(",")
    }
}

/// A LabelSelector object in its string form, sorted by key as Go prints it.
pub fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector.filter(|s| !s.is_null()) else {
        return NONE.to_owned();
    };
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|m| m.iter())
    {
        terms.push((
            key.to_owned(),
            format!("{key}={}", value.as_str().unwrap_or_default()),
        ));
    }
    for expression in selector.list_at("matchExpressions") {
        let key = expression.str_at("key");
        let mut values: Vec<&str> = expression
            .list_at("values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let term = match expression.str_at("operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => "<error>".to_owned(),
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort();
    if terms.is_empty() {
        NONE.to_owned()
    } else {
        terms
            .into_iter()
            .map(|(_, term)| term)
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// The first three, and how many more there are.
pub fn listed(items: &[String]) -> String {
    let shown = items
        .iter()
        .take(MAX_LISTED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(",");
    match items.len() {
        0 => NONE.to_owned(),
        n if n > MAX_LISTED => format!("{shown} + {} more...", n - MAX_LISTED),
        _ => shown,
    }
}

pub fn has_condition(conditions: &[Value], kind: &str) -> bool {
    conditions
        .iter()
        .any(|c| c.str_at("type") == kind && c.str_at("status") == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_read_as_kubectl_shows_them() {
        let cases = [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (3600, "60m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 300, "3h5m"),
            (10 * 3600, "10h"),
            (2 * 86400 + 3600, "2d1h"),
            (30 * 86400, "30d"),
            (800 * 86400, "2y70d"),
            (4000 * 86400, "10y"),
        ];
        for (seconds, want) in cases {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn selectors_are_sorted_text() {
        let value: Value = serde_json::from_value(json!({
            "matchLabels": {"b": "1"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}],
        }))
        .expect("value");
        assert_eq!(selector(Some(&value)), "a in (x,y),b=1,!c");
        assert_eq!(selector(None), NONE);
    }
}
