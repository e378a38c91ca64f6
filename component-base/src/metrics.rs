//! The metrics registry and its Prometheus text. Names, labels and buckets are upstream's and are API.
//!
//! A family is declared once in a `LazyLock` static; `with` finds or makes the series of some label values
//! and returns a handle that hot paths keep. The number of series of a family is bounded: label values come from
//! requests, and a scan of random paths must not become memory.

mod process;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

/// Series of one family beyond this are counted under [`OVERFLOW`]. The largest upstream family
/// (apiserver_request_duration_seconds by verb, resource, scope) stays below 3,000.
pub const MAX_SERIES: usize = 4096;
/// Label value of the series that takes what exceeded [`MAX_SERIES`].
pub const OVERFLOW: &str = "_overflow";

/// Upstream's default buckets (prometheus.DefBuckets).
pub const DEFAULT_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static REGISTRY: Mutex<BTreeMap<&'static str, Entry>> = Mutex::new(BTreeMap::new());

type Collect = Arc<dyn Fn(&mut String) + Send + Sync>;

#[derive(Clone)]
enum Entry {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Collector(Collect),
}

pub fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Counter {
    let fresh = Counter(Family::new(name, help, labels));
    match register(name, Entry::Counter(fresh.clone())) {
        Entry::Counter(registered) => registered,
        _ => fresh,
    }
}

pub fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Gauge {
    let fresh = Gauge(Family::new(name, help, labels));
    match register(name, Entry::Gauge(fresh.clone())) {
        Entry::Gauge(registered) => registered,
        _ => fresh,
    }
}

pub fn histogram(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    buckets: &[f64],
) -> Histogram {
    let fresh = Histogram {
        family: Family::new(name, help, labels),
        bounds: buckets.into(),
    };
    match register(name, Entry::Histogram(fresh.clone())) {
        Entry::Histogram(registered) => registered,
        _ => fresh,
    }
}

/// A gauge without labels whose value is asked for at each scrape.
pub fn gauge_fn(name: &'static str, help: &'static str, f: impl Fn() -> f64 + Send + Sync + 'static) {
    collector(name, move |out| {
        text::head(out, name, help, "gauge");
        text::sample(out, name, &[], &[], f());
    });
}

/// A counter without labels whose value is kept elsewhere and asked for at each scrape.
pub fn counter_fn(name: &'static str, help: &'static str, f: impl Fn() -> f64 + Send + Sync + 'static) {
    collector(name, move |out| {
        text::head(out, name, help, "counter");
        text::sample(out, name, &[], &[], f());
    });
}

/// Writes whole families at each scrape, for sets that change with the cluster (one series for each container).
/// Use [`write_head`] and [`write_sample`].
pub fn collector(name: &'static str, f: impl Fn(&mut String) + Send + Sync + 'static) {
    REGISTRY.lock().insert(name, Entry::Collector(Arc::new(f)));
}

pub use process::{max_fds, open_fds};
pub use text::{CONTENT_TYPE, head as write_head, sample as write_sample};

/// `first, first*factor, ...` as prometheus.ExponentialBuckets.
pub fn exponential_buckets(first: f64, factor: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(first), |bound| Some(bound * factor))
        .take(count)
        .collect()
}

/// `first, first+width, ...` as prometheus.LinearBuckets.
pub fn linear_buckets(first: f64, width: f64, count: usize) -> Vec<f64> {
    (0..count).map(|index| first + width * index as f64).collect()
}

/// Everything registered, and the families that every process has.
pub fn render() -> String {
    let entries: Vec<(&'static str, Entry)> = REGISTRY
        .lock()
        .iter()
        .map(|(name, entry)| (*name, entry.clone()))
        .collect();
    let mut out = String::with_capacity(64 * 1024);
    for (_, entry) in entries {
        match entry {
            Entry::Counter(counter) => counter.render(&mut out),
            Entry::Gauge(gauge) => gauge.render(&mut out),
            Entry::Histogram(histogram) => histogram.render(&mut out),
            Entry::Collector(collect) => collect(&mut out),
        }
    }
    process::render(&mut out);
    out
}

/// A family declared twice is one family, as long as its type agrees.
fn register(name: &'static str, entry: Entry) -> Entry {
    REGISTRY.lock().entry(name).or_insert(entry).clone()
}

#[derive(Clone)]
pub struct Counter(Arc<Family<CounterValue>>);

#[derive(Clone)]
pub struct Gauge(Arc<Family<GaugeValue>>);

#[derive(Clone)]
pub struct Histogram {
    family: Arc<Family<HistogramValue>>,
    bounds: Arc<[f64]>,
}

struct Family<V> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    series: RwLock<Series<V>>,
}

struct Series<V> {
    by_hash: HashMap<u64, Vec<(LabelValues, Arc<V>)>>,
    count: usize,
}

type LabelValues = Box<[Box<str>]>;

impl<V> Family<V> {
    fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Arc<Self> {
        Arc::new(Family {
            name,
            help,
            labels,
            series: RwLock::new(Series {
                by_hash: HashMap::new(),
                count: 0,
            }),
        })
    }

    fn with(&self, values: &[&str], make: impl FnOnce() -> V) -> Arc<V> {
        let hash = hash(values);
        if let Some(found) = self.series.read().find(hash, values) {
            return found;
        }
        let mut series = self.series.write();
        if let Some(found) = series.find(hash, values) {
            return found;
        }
        if series.count >= MAX_SERIES {
            let overflow = vec![OVERFLOW; self.labels.len()];
            return series
                .find(self::hash(&overflow), &overflow)
                .unwrap_or_else(|| series.insert(&overflow, Arc::new(make())));
        }
        series.insert(values, Arc::new(make()))
    }

    fn remove(&self, values: &[&str]) {
        let mut series = self.series.write();
        let Some(bucket) = series.by_hash.get_mut(&hash(values)) else {
            return;
        };
        let before = bucket.len();
        bucket.retain(|(labels, _)| !same(labels, values));
        series.count -= before - bucket.len();
    }

    fn clear(&self) {
        let mut series = self.series.write();
        series.by_hash.clear();
        series.count = 0;
    }

    /// Sorted by label values, so that two scrapes list series in the same order.
    fn sorted(&self) -> Vec<(LabelValues, Arc<V>)> {
        let mut all: Vec<_> = self
            .series
            .read()
            .by_hash
            .values()
            .flatten()
            .map(|(labels, value)| (labels.clone(), value.clone()))
            .collect();
        all.sort_by(|left, right| left.0.cmp(&right.0));
        all
    }
}

impl<V> Series<V> {
    fn find(&self, hash: u64, values: &[&str]) -> Option<Arc<V>> {
        self.by_hash
            .get(&hash)?
            .iter()
            .find(|(labels, _)| same(labels, values))
            .map(|(_, value)| value.clone())
    }

    fn insert(&mut self, values: &[&str], value: Arc<V>) -> Arc<V> {
        let labels = values.iter().map(|label| Box::from(*label)).collect();
        self.by_hash
            .entry(hash(values))
            .or_default()
            .push((labels, value.clone()));
        self.count += 1;
        value
    }
}

fn hash(values: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    hasher.finish()
}

fn same(labels: &[Box<str>], values: &[&str]) -> bool {
    labels.len() == values.len() && labels.iter().zip(values).all(|(label, value)| **label == **value)
}

/// Whole increments are counted in an integer, so that `inc` is one atomic add.
#[derive(Default)]
pub struct CounterValue {
    whole: AtomicU64,
    fraction: AtomicU64,
}

impl CounterValue {
    pub fn inc(&self) {
        self.whole.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add(&self, amount: f64) {
        if amount >= 0.0 && amount.fract() == 0.0 && amount < u32::MAX as f64 {
            self.whole.fetch_add(amount as u64, Ordering::Relaxed);
        } else if amount > 0.0 {
            add_f64(&self.fraction, amount);
        }
    }

    pub fn get(&self) -> f64 {
        self.whole.load(Ordering::Relaxed) as f64 + f64::from_bits(self.fraction.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
pub struct GaugeValue(AtomicU64);

impl GaugeValue {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    pub fn add(&self, amount: f64) {
        add_f64(&self.0, amount);
    }

    pub fn sub(&self, amount: f64) {
        add_f64(&self.0, -amount);
    }

    pub fn inc(&self) {
        self.add(1.0);
    }

    pub fn dec(&self) {
        self.sub(1.0);
    }

    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

pub struct HistogramValue {
    bounds: Arc<[f64]>,
    /// One for each bound and a last one for +Inf; not cumulative until rendered.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl HistogramValue {
    fn new(bounds: Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        HistogramValue {
            bounds,
            counts,
            sum: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, value: f64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        add_f64(&self.sum, value);
    }

    pub fn observe_since(&self, start: std::time::Instant) {
        self.observe(start.elapsed().as_secs_f64());
    }

    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    pub fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Ordering::Relaxed))
    }
}

fn add_f64(cell: &AtomicU64, amount: f64) {
    let add = |bits| Some((f64::from_bits(bits) + amount).to_bits());
    // The closure never returns None, so the update cannot fail.
    cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
}

impl Counter {
    pub fn with(&self, values: &[&str]) -> Arc<CounterValue> {
        self.0.with(values, CounterValue::default)
    }

    /// A series whose value is counted by another family, as long as there is none of these labels.
    pub fn share(&self, values: &[&str], value: Arc<CounterValue>) {
        let mut series = self.0.series.write();
        if series.count < MAX_SERIES && series.find(hash(values), values).is_none() {
            series.insert(values, value);
        }
    }

    /// For a family without labels.
    pub fn inc(&self) {
        self.with(&[]).inc();
    }

    /// For a family without labels.
    pub fn add(&self, amount: f64) {
        self.with(&[]).add(amount);
    }

    pub fn remove(&self, values: &[&str]) {
        self.0.remove(values);
    }

    fn render(&self, out: &mut String) {
        let family = &self.0;
        text::family(
            out,
            family.name,
            family.help,
            "counter",
            family.sorted(),
            |out, labels, value| {
                text::sample_of(out, family.name, family.labels, labels, value.get());
            },
        );
    }
}

impl Gauge {
    pub fn with(&self, values: &[&str]) -> Arc<GaugeValue> {
        self.0.with(values, GaugeValue::default)
    }

    /// For a family without labels.
    pub fn set(&self, value: f64) {
        self.with(&[]).set(value);
    }

    /// For a family without labels.
    pub fn inc(&self) {
        self.with(&[]).inc();
    }

    /// For a family without labels.
    pub fn dec(&self) {
        self.with(&[]).dec();
    }

    pub fn remove(&self, values: &[&str]) {
        self.0.remove(values);
    }

    pub fn clear(&self) {
        self.0.clear();
    }

    fn render(&self, out: &mut String) {
        let family = &self.0;
        text::family(
            out,
            family.name,
            family.help,
            "gauge",
            family.sorted(),
            |out, labels, value| {
                text::sample_of(out, family.name, family.labels, labels, value.get());
            },
        );
    }
}

impl Histogram {
    pub fn with(&self, values: &[&str]) -> Arc<HistogramValue> {
        self.family
            .with(values, || HistogramValue::new(self.bounds.clone()))
    }

    /// For a family without labels.
    pub fn observe(&self, seconds: f64) {
        self.with(&[]).observe(seconds);
    }

    pub fn remove(&self, values: &[&str]) {
        self.family.remove(values);
    }

    fn render(&self, out: &mut String) {
        let family = &self.family;
        text::family(
            out,
            family.name,
            family.help,
            "histogram",
            family.sorted(),
            |out, labels, value| {
                let counts: Vec<u64> = value
                    .counts
                    .iter()
                    .map(|count| count.load(Ordering::Relaxed))
                    .collect();
                text::histogram(
                    out,
                    family.name,
                    (family.labels, labels),
                    &value.bounds,
                    &counts,
                    value.sum(),
                );
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_listed_with_help_type_and_escaped_labels() {
        let counter = counter("test_requests_total", "Requests.", &["verb", "path"]);
        counter.with(&["GET", "/\"a\"\n"]).add(2.5);
        counter.with(&["GET", "/\"a\"\n"]).inc();
        let text = render();
        assert!(text.contains("# HELP test_requests_total Requests.\n# TYPE test_requests_total counter\n"));
        assert!(
            text.contains("test_requests_total{verb=\"GET\",path=\"/\\\"a\\\"\\n\"} 3.5\n"),
            "{text}"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_infinity() {
        let histogram = histogram("test_seconds", "Time.", &["op"], &[0.1, 1.0]);
        let value = histogram.with(&["x"]);
        [0.05, 0.1, 0.5, 7.0]
            .iter()
            .for_each(|seconds| value.observe(*seconds));
        let text = render();
        for line in [
            "test_seconds_bucket{op=\"x\",le=\"0.1\"} 2\n",
            "test_seconds_bucket{op=\"x\",le=\"1\"} 3\n",
            "test_seconds_bucket{op=\"x\",le=\"+Inf\"} 4\n",
            "test_seconds_sum{op=\"x\"} 7.65\n",
            "test_seconds_count{op=\"x\"} 4\n",
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }

    #[test]
    fn series_beyond_the_bound_share_one() {
        let gauge = gauge("test_bounded", "Bounded.", &["id"]);
        (0..MAX_SERIES + 10).for_each(|id| gauge.with(&[&id.to_string()]).set(1.0));
        assert!(gauge.0.series.read().count <= MAX_SERIES + 1);
        assert!(render().contains("test_bounded{id=\"_overflow\"} 1\n"));
        gauge.remove(&["5"]);
        assert!(!render().contains("test_bounded{id=\"5\"}"));
    }

    #[test]
    fn every_process_says_what_it_uses() {
        let text = render();
        for name in [
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_open_fds ",
            "process_start_time_seconds ",
            "go_goroutines ",
            "go_threads ",
            "process_network_receive_bytes_total ",
            "process_virtual_memory_max_bytes ",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name} not in {text}");
        }
        assert!(text.contains("kubernetes_build_info{"));
    }
}
