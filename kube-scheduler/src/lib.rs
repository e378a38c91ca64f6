//! kube-scheduler: finds a node for every pod that has none.
//!
//! One pod's way: an informer tells [`run`] of it and [`scheduler::Scheduler::put_pod`] puts it into the [`queue`].
//! When its turn comes, the scheduler compiles it against the columns of [`nodes`] with the [`plugins`] that the
//! [`framework`] profile of its scheduler name runs, picks a node and assumes the pod there. `run` posts the binding;
//! the pod's update confirms it. A pod that fits nowhere gets its PodScheduled condition and an event, and waits for a
//! change that some plugin says may help.
//!
//! [`scheduler`] and below are pure: no IO, no clock, one owner. [`config`] and [`options`] read what the user wants,
//! [`run`] does the talking, [`metrics`] has upstream's names.
//!
//! What is not here: dynamic resource allocation, volumes that bind late, extenders, gang scheduling.

pub mod config;
pub mod framework;
pub mod metrics;
pub mod nodes;
pub mod options;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resources;
pub mod run;
pub mod scheduler;
pub mod selector;
#[cfg(test)]
mod testing;
