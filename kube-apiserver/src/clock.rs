//! Wall-clock time for timestamps in objects.

use std::time::{SystemTime, UNIX_EPOCH};

use apimachinery::time::Timestamp;

pub fn now() -> Timestamp {
    // Before 1970 only a broken clock can be; objects then say 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since.as_secs() as i64,
        nanos: since.subsec_nanos(),
    }
}

pub fn now_s() -> i64 {
    now().seconds
}

/// `2006-01-02T15:04:05Z`
pub fn rfc3339(seconds: i64) -> String {
    Timestamp { seconds, nanos: 0 }.format()
}
