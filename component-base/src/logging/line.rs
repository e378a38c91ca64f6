//! One event to one line.

use std::fmt;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

pub(super) struct Context {
    pub component: &'static str,
    pub pid: u32,
    pub now: Now,
}

pub(super) struct Now {
    since_epoch_ms: f64,
    date: OffsetDateTime,
}

impl Now {
    pub fn read() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = OffsetDateTime::from_unix_timestamp_nanos(since_epoch.as_nanos() as i128)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Now {
            since_epoch_ms: since_epoch.as_secs_f64() * 1000.0,
            date,
        }
    }
}

pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `I1025 00:15:15.525108       1 file.rs:116] "Msg" k="v"`.
pub(super) fn text(event: &Event<'_>, context: &Context, out: &mut Vec<u8>) {
    let metadata = event.metadata();
    let fields = Fields::of(event);
    let date = context.now.date;
    // Writing to a Vec cannot fail, here and below.
    write!(
        out,
        "{}{:02}{:02} {:02}:{:02}:{:02}.{:06} {:7} {}:{}] ",
        letter(metadata.level()),
        date.month() as u8,
        date.day(),
        date.hour(),
        date.minute(),
        date.second(),
        date.microsecond(),
        context.pid,
        base_name(metadata.file().unwrap_or("???")),
        metadata.line().unwrap_or(1),
    )
    .ok();
    quote(&fields.message, out);
    for (name, value) in &fields.pairs {
        write!(out, " {name}=").ok();
        value.text(out);
    }
    out.push(b'\n');
}

/// Kubernetes' JSON: milliseconds since the epoch, `v` on all but error lines.
pub(super) fn json(event: &Event<'_>, context: &Context, out: &mut Vec<u8>) {
    let fields = Fields::of(event);
    write!(out, "{{\"ts\":{:.4},\"caller\":", context.now.since_epoch_ms).ok();
    caller(event, out);
    out.extend_from_slice(b",\"msg\":");
    json_string(&fields.message, out);
    match *event.metadata().level() {
        Level::ERROR => {}
        Level::WARN | Level::INFO => out.extend_from_slice(b",\"v\":0"),
        Level::DEBUG => out.extend_from_slice(b",\"v\":4"),
        Level::TRACE => out.extend_from_slice(b",\"v\":6"),
    }
    json_pairs(&fields, out);
    out.extend_from_slice(b"}\n");
}

/// etcd's zap: `{"level":"warn","ts":"2026-11-23T03:16:37.123456Z","caller":"file.rs:1","msg":"..."}`.
pub(super) fn zap(event: &Event<'_>, context: &Context, out: &mut Vec<u8>) {
    let fields = Fields::of(event);
    let date = context.now.date;
    write!(out, "{{\"level\":\"{}\",\"ts\":\"", level(event)).ok();
    timestamp(date, out);
    write!(out, "\",\"logger\":\"{}\",\"caller\":", context.component).ok();
    caller(event, out);
    out.extend_from_slice(b",\"msg\":");
    json_string(&fields.message, out);
    json_pairs(&fields, out);
    out.extend_from_slice(b"}\n");
}

/// zap for people: `2026-11-23T03:16:37.123456Z warn file.rs:1 message {"key": "value"}`, with tabs between.
pub(super) fn console(event: &Event<'_>, context: &Context, out: &mut Vec<u8>) {
    let (fields, metadata) = (Fields::of(event), event.metadata());
    timestamp(context.now.date, out);
    let file = base_name(metadata.file().unwrap_or("???"));
    let line = metadata.line().unwrap_or(1);
    write!(out, "\t{}\t{file}:{line}\t{}", level(event), fields.message).ok();
    for (place, (name, value)) in fields.pairs.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b"\t{" } else { b", " });
        json_string(name, out);
        out.extend_from_slice(b": ");
        value.json(out);
    }
    if !fields.pairs.is_empty() {
        out.push(b'}');
    }
    out.push(b'\n');
}

fn level(event: &Event<'_>) -> &'static str {
    match *event.metadata().level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

fn timestamp(date: OffsetDateTime, out: &mut Vec<u8>) {
    write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        date.year(),
        date.month() as u8,
        date.day(),
        date.hour(),
        date.minute(),
        date.second(),
        date.microsecond(),
    )
    .ok();
}

fn letter(level: &Level) -> char {
    match *level {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        Level::INFO | Level::DEBUG | Level::TRACE => 'I',
    }
}

fn caller(event: &Event<'_>, out: &mut Vec<u8>) {
    let metadata = event.metadata();
    write!(
        out,
        "\"{}:{}\"",
        base_name(metadata.file().unwrap_or("???")),
        metadata.line().unwrap_or(1)
    )
    .ok();
}

fn json_pairs(fields: &Fields, out: &mut Vec<u8>) {
    for (name, value) in &fields.pairs {
        out.push(b',');
        json_string(name, out);
        out.push(b':');
        value.json(out);
    }
}

/// As Go's strconv.Quote.
fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\r' => out.extend_from_slice(b"\\r"),
            control if control.is_ascii_control() => drop(write!(out, "\\x{:02x}", control as u32)),
            control if control.is_control() => drop(write!(out, "\\u{:04x}", control as u32)),
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

fn json_string(text: &str, out: &mut Vec<u8>) {
    // Serializing a &str to memory cannot fail.
    serde_json::to_writer(out, text).ok();
}

struct Fields {
    message: String,
    pairs: Vec<(&'static str, Value)>,
}

enum Value {
    /// Written as it is.
    Plain(String),
    Quoted(String),
}

impl Value {
    /// klog writes text of several lines as a block: `k=<`, each line behind a tab, ` >`.
    fn text(&self, out: &mut Vec<u8>) {
        match self {
            Value::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Value::Quoted(text) if text.contains('\n') => block(text, out),
            Value::Quoted(text) => quote(text, out),
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        match self {
            Value::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Value::Quoted(text) => json_string(text, out),
        }
    }
}

fn block(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<\n");
    for line in text.trim_end_matches('\n').split('\n') {
        out.push(b'\t');
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b" >");
}

impl Fields {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Fields {
            message: String::new(),
            pairs: Vec::new(),
        };
        event.record(&mut fields);
        fields
    }

    fn push(&mut self, field: &Field, value: Value) {
        self.pairs.push((field.name(), value));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            _ => self.push(field, Value::Quoted(value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.push(field, Value::Quoted(format!("{value:?}"))),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.push(field, Value::Quoted(text));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(
            field,
            if value.is_finite() {
                Value::Plain(value.to_string())
            } else {
                Value::Quoted(value.to_string())
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::{Metadata, Subscriber, span};

    type Render = fn(&Event<'_>, &Context, &mut Vec<u8>);

    /// Renders each event at 2025-10-25 00:15:15.525108 as process 1.
    struct Recorder(Render, Arc<Mutex<Vec<u8>>>);

    impl Subscriber for Recorder {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let nanos = 1_761_351_315_525_108_000i128;
            let now = Now {
                since_epoch_ms: nanos as f64 / 1e6,
                date: OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap(),
            };
            (self.0)(
                event,
                &Context {
                    component: "kubelet",
                    pid: 1,
                    now,
                },
                &mut self.1.lock().unwrap(),
            );
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn rendered(render: Render, log: impl FnOnce()) -> String {
        let out = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Recorder(render, out.clone()), log);
        let bytes = out.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_lines_are_klog_lines() {
        let line = rendered(
            text,
            || tracing::info!(pod = %"kube-system/kubedns", ready = true, restarts = 3, "Pod status updated"),
        );
        let (head, rest) = line.split_once("] ").unwrap();
        assert!(
            head.starts_with("I1025 00:15:15.525108       1 line.rs:"),
            "{head}"
        );
        assert_eq!(
            rest,
            "\"Pod status updated\" pod=\"kube-system/kubedns\" ready=true restarts=3\n"
        );
    }

    #[test]
    fn text_of_several_lines_is_a_block() {
        let line = rendered(text, || tracing::error!(err = %"a\nb", "Failed"));
        assert!(line.starts_with('E'));
        assert!(line.ends_with("] \"Failed\" err=<\n\ta\n\tb\n >\n"), "{line}");
    }

    #[test]
    fn json_lines_parse_and_carry_the_verbosity() {
        let line = rendered(json, || tracing::debug!(pod = "a/b", n = 2, "Say \"it\""));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], "Say \"it\"");
        assert_eq!(
            (&value["v"], &value["n"], &value["pod"]),
            (&4.into(), &2.into(), &"a/b".into())
        );
        assert_eq!(value["ts"].as_f64().unwrap(), 1_761_351_315_525.108);
    }

    #[test]
    fn etcd_lines_are_zap_lines() {
        let line = rendered(zap, || tracing::warn!("apply request took too long"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["level"], &value["ts"]),
            (&"warn".into(), &"2025-10-25T00:15:15.525108Z".into())
        );
    }

    #[test]
    fn console_lines_are_zaps_for_people() {
        let line = rendered(console, || tracing::warn!(took = "1s", n = 2, "slow"));
        let (head, rest) = line.split_once("\tline.rs:").unwrap();
        assert_eq!(head, "2025-10-25T00:15:15.525108Z\twarn");
        let (_, rest) = rest.split_once('\t').unwrap();
        assert_eq!(rest, "slow\t{\"took\": \"1s\", \"n\": 2}\n");
    }
}
