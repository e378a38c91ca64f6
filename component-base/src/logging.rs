//! klog's text lines, its JSON lines and etcd's zap lines, from `tracing` events; on stderr, etcd's also where its flags say.
//!
//! `info!(pod = %key, "Pod status updated")` becomes
//! `I1025 00:15:15.525108       1 status.rs:116] "Pod status updated" pod="kube-system/kubedns"`.
//! `debug!` is V(4), `trace!` is V(6); events of dependencies need four more.

pub(crate) mod etcd;
mod journal;
mod line;
mod output;
mod rotate;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::flags::Flags;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// klog's text.
    Text,
    /// Kubernetes' `--logging-format=json`.
    Json,
    /// etcd's zap JSON.
    Zap,
    /// zap's lines for people.
    Console,
}

const DEBUG_VERBOSITY: u32 = 4;
const TRACE_VERBOSITY: u32 = 6;
/// Added to the verbosity that an event of a dependency needs.
const FOREIGN_VERBOSITY: u32 = 4;
/// Crates whose debug events are noise to whoever operates a cluster.
const FOREIGN: &[&str] = &[
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "raft",
    "rustls",
    "tokio",
    "tokio_util",
    "tonic",
    "tower",
    "want",
];

static VERBOSITY: AtomicU32 = AtomicU32::new(0);
/// What etcd's flags say, in etcd alone.
static ETCD: ArcSwapOption<etcd::Settings> = ArcSwapOption::const_empty();

/// Installs the subscriber; a second call only changes the verbosity.
pub fn init(component: &'static str, format: Format, verbosity: u32) {
    init_with_modules(component, format, verbosity, Vec::new());
}

/// As [`init`] with `--vmodule`: pairs of a file name pattern without `.rs` (`*` and `?`) and its verbosity.
pub fn init_with_modules(
    component: &'static str,
    format: Format,
    verbosity: u32,
    modules: Vec<(String, u32)>,
) {
    VERBOSITY.store(verbosity, Ordering::Relaxed);
    let most = modules
        .iter()
        .map(|(_, level)| *level)
        .chain([verbosity])
        .max()
        .unwrap_or(verbosity);
    let logger = Logger {
        component,
        format,
        modules,
        most,
        pid: std::process::id(),
    };
    // Tests call init more than once in a process; the first subscriber stays.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(logger)).ok();
}

/// Follows etcd's flags: at the start, and again when a configuration file has changed them.
pub fn follow_etcd_flags(flags: &Flags) -> Result<(), String> {
    let settings = etcd::begin(flags)?;
    VERBOSITY.fetch_max(settings.verbosity, Ordering::Relaxed);
    ETCD.store(Some(Arc::new(settings)));
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

pub fn verbosity() -> u32 {
    VERBOSITY.load(Ordering::Relaxed)
}

struct Logger {
    component: &'static str,
    format: Format,
    modules: Vec<(String, u32)>,
    most: u32,
    pid: u32,
}

impl Logger {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if !metadata.is_event() {
            return false;
        }
        let needed = needed_verbosity(metadata);
        needed <= verbosity()
            || self
                .modules
                .iter()
                .any(|(pattern, level)| needed <= *level && matches(pattern, stem(metadata)))
    }
}

fn needed_verbosity(metadata: &Metadata<'_>) -> u32 {
    let base = match *metadata.level() {
        Level::ERROR | Level::WARN | Level::INFO => return 0,
        Level::DEBUG => DEBUG_VERBOSITY,
        Level::TRACE => TRACE_VERBOSITY,
    };
    let krate = metadata.target().split("::").next().unwrap_or("");
    if FOREIGN.contains(&krate) {
        base + FOREIGN_VERBOSITY
    } else {
        base
    }
}

fn stem<'a>(metadata: &Metadata<'a>) -> &'a str {
    line::base_name(metadata.file().unwrap_or("")).trim_end_matches(".rs")
}

/// klog's `--vmodule` patterns: `*` and `?` on the file name.
fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            matches(&pattern[1..], name)
                || name
                    .chars()
                    .next()
                    .is_some_and(|first| matches(pattern, &name[first.len_utf8()..]))
        }
        (Some('?'), Some(first)) => matches(&pattern[1..], &name[first.len_utf8()..]),
        (Some(wanted), Some(first)) if wanted == first => {
            matches(&pattern[wanted.len_utf8()..], &name[first.len_utf8()..])
        }
        _ => false,
    }
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A line buffer that grew beyond this is given back.
const BUFFER_KEPT_BYTES: usize = 16 * 1024;

impl<S: Subscriber> Layer<S> for Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.most.max(verbosity()) {
            0..DEBUG_VERBOSITY => LevelFilter::INFO,
            DEBUG_VERBOSITY..TRACE_VERBOSITY => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        BUFFER.with(|buffer| match buffer.try_borrow_mut() {
            Ok(mut buffer) => self.write(event, &mut buffer),
            // A Debug impl that logs while it is being logged.
            Err(_) => self.write(event, &mut Vec::new()),
        });
    }
}

impl Logger {
    fn write(&self, event: &Event<'_>, buffer: &mut Vec<u8>) {
        let (etcd, level) = (ETCD.load(), *event.metadata().level());
        if let Some(etcd) = &*etcd
            && etcd.level.is_none_or(|least| level > least)
        {
            return;
        }
        buffer.clear();
        let context = line::Context {
            component: self.component,
            pid: self.pid,
            now: line::Now::read(),
        };
        match etcd.as_ref().map_or(self.format, |etcd| etcd.format) {
            Format::Text => line::text(event, &context, buffer),
            Format::Json => line::json(event, &context, buffer),
            Format::Zap => line::zap(event, &context, buffer),
            Format::Console => line::console(event, &context, buffer),
        }
        output::write(level, buffer);
        if buffer.capacity() > BUFFER_KEPT_BYTES {
            *buffer = Vec::new();
        }
    }
}

/// Panics become one error line with their place; `RUST_BACKTRACE` adds the trace on stderr.
pub(crate) fn install_panic_hook() {
    static DEFAULT: OnceLock<()> = OnceLock::new();
    DEFAULT.get_or_init(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let payload = info.payload();
            let text = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let message = text.unwrap_or("(no text)");
            tracing::error!(place = %place, err = %message, "Observed a panic");
            if std::env::var_os("RUST_BACKTRACE").is_some() {
                previous(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn vmodule_patterns_match_file_names() {
        assert!(matches("status*", "status_manager"));
        assert!(matches("*_manager", "status_manager"));
        assert!(matches("st?tus", "status"));
        assert!(!matches("status", "status_manager"));
        assert!(!matches("?", ""));
    }
}
