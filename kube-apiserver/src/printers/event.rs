//! Events, in both groups.

use apimachinery::value::Value;

use super::text::{Row, or};
use super::{Column, Printer, string, wide};

pub const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        resource: "events",
        columns: COLUMNS,
        cells: event,
    },
    Printer {
        group: "events.k8s.io",
        resource: "events",
        columns: COLUMNS,
        cells: event,
    },
];

const COLUMNS: &[Column] = &[
    string("Last Seen"),
    string("Type"),
    string("Reason"),
    string("Object"),
    wide("Subobject"),
    wide("Source"),
    string("Message"),
    wide("First Seen"),
    wide("Count"),
    Column {
        format: "name",
        ..wide("Name")
    },
];

fn event(row: &Row<'_>) -> Vec<Value> {
    let event = row.object;
    // events.k8s.io names the old fields "deprecated..." and the object "regarding".
    let either = |core: &'static str, new: &'static str| or(event.str_at(core), event.str_at(new));
    let first = row.since(or(
        either("firstTimestamp", "deprecatedFirstTimestamp"),
        event.str_at("eventTime"),
    ));
    let mut last = match either("lastTimestamp", "deprecatedLastTimestamp") {
        "" => first.clone(),
        time => row.since(time),
    };
    let mut count = event
        .int_at("count")
        .or_else(|| event.int_at("deprecatedCount"))
        .filter(|n| *n > 0)
        .unwrap_or(1);
    if let Some(series) = event.get("series").filter(|s| !s.is_null()) {
        last = row.since(series.str_at("lastObservedTime"));
        count = series.int_at("count").unwrap_or_default();
    }
    let kind = either("involvedObject.kind", "regarding.kind").to_lowercase();
    let target = match either("involvedObject.name", "regarding.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = or(
        either("source.component", "deprecatedSource.component"),
        either("reportingComponent", "reportingController"),
    );
    let host = or(
        either("source.host", "deprecatedSource.host"),
        event.str_at("reportingInstance"),
    );
    let source = if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    vec![
        last.into(),
        row.text("type"),
        row.text("reason"),
        target.into(),
        either("involvedObject.fieldPath", "regarding.fieldPath").into(),
        source.into(),
        either("message", "note").trim().into(),
        first.into(),
        count.into(),
        row.name(),
    ]
}
