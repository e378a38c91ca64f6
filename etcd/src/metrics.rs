//! What `/metrics` tells, by the names that etcd's mixin and everybody's dashboards know.
//!
//! What happens is counted where it happens: in a series of [`counted`], found once and then one atomic addition, or, by the kind of entry, in
//! [`applied`]. What is kept elsewhere anyway is asked for at each scrape, by the table in [`asked`]. Names of Go's etcd that mean nothing here are in
//! ARCHITECTURE.md.

pub mod applied;
mod asked;
pub mod clients;
mod counted;
mod operations;

use std::sync::Arc;

use component_base::metrics;

use crate::config::features::Features;
use crate::server::EtcdServer;

pub use counted::*;
pub use operations::Operations;

/// What was not counted yet is shown as zero: a rule over a series that is absent stays silent.
pub fn register(server: &Arc<EtcdServer>, features: &Features) {
    counted::show();
    crate::rpc::serve::count_from_zero();
    asked::register(server);
    for (name, stage, on) in features.list() {
        FEATURES.with(&[name, stage]).set(f64::from(u8::from(on)));
    }
}

/// The one series of a family that is counted from the start.
fn single(name: &'static str, help: &'static str) -> Arc<metrics::CounterValue> {
    metrics::counter(name, help, &[]).with(&[])
}
