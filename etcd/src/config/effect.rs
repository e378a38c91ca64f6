//! Flags that are accepted because etcd has them and that change nothing here: whoever sets one is told.

use component_base::flags::Flags;

/// Name, and why nothing comes of it.
const NONE: &[(&str, &str)] = &[
    ("socket-reuse-address", "listeners always do, as Go's"),
    ("enable-pprof", "there is no profiler in this binary"),
    ("backend-bbolt-freelist-type", "there is no bbolt"),
    ("backend-batch-limit", "batches follow the load"),
    ("backend-batch-interval", "batches follow the load"),
    ("max-snapshots", "there are no snapshot files"),
    ("max-wals", "wal files go once the store is durable"),
    ("v2-deprecation", "there is no v2 store"),
    (
        "compaction-batch-limit",
        "compaction goes in steps of microseconds",
    ),
    (
        "compaction-sleep-interval",
        "compaction goes in steps of microseconds",
    ),
    (
        "bootstrap-defrag-threshold-megabytes",
        "space is reclaimed while serving",
    ),
    (
        "downgrade-check-time",
        "the leader looks after the cluster's version every second",
    ),
    ("metrics", "every metric is always exported"),
    ("discovery-fallback", "there is no proxy"),
    ("discovery-proxy", "there is no discovery by the v2 API"),
];

pub fn warn(flags: &Flags) {
    for (name, reason) in NONE.iter().filter(|(name, _)| flags.is_declared(name)) {
        let experimental = format!("experimental-{name}");
        let given = |name: &str| flags.is_declared(name) && flags.is_set(name) && !is_default(flags, name);
        if given(name) || given(&experimental) {
            tracing::warn!(flag = format!("--{name}"), reason, "this flag has no effect");
        }
    }
}

/// A default that is spelled out is no wish.
fn is_default(flags: &Flags, name: &str) -> bool {
    let value = |flags: &Flags| {
        flags
            .each()
            .find(|(flag, _)| *flag == name)
            .map(|(_, value)| value)
    };
    let Ok(defaults) = super::flags().parse(std::iter::empty()) else {
        return false;
    };
    value(flags) == value(&defaults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_flag() {
        let flags = super::super::flags().parse(std::iter::empty()).unwrap();
        for (name, _) in NONE {
            assert!(flags.is_declared(name), "--{name}");
        }
        assert!(is_default(&flags, "max-wals"));
    }
}
