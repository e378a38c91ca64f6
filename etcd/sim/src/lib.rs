//! A cluster of our etcd in one thread, under a seed: what the members, their disks, the network, the clocks and the clients do next is drawn by one
//! random generator, so a run that goes wrong goes wrong again.
//!
//! 1. [`plan`] draws what kind of run it is: how many members, how large their segments are, how slow and lossy the network is, which faults
//!    happen. No run has everything at once: rare things become likely where others are absent.
//! 2. [`world`] holds the virtual time and always does what comes next. A [`member`] is the real thing (driver, WAL, applier, keeper, hub, store),
//!    assembled as `etcd::bootstrap` does it, on a [`machine`] with a fake disk; each of its threads is a part whose turns are drawn one by one.
//!    [`outside`] is what those threads meet at their ends, [`server`] lets its tasks wait in virtual time.
//! 3. [`network`] carries the members' messages in the bytes that would travel, late, twice, out of order or not at all; [`stores`] sends whole
//!    stores, and says what a member does with what arrives.
//! 4. [`client`]s ask, [`holder`]s keep [`leases`], [`watcher`]s watch, and all write down what they hear.
//! 5. [`faults`] take power away between any two operations of a disk, kill, pause, cut off, fill disks; [`changes`] adds, promotes and removes
//!    members, [`moves`] changes where they are.
//! 6. [`judge`] heals everything, wants progress, compares the members, and lets the checker judge what was heard.
//!
//! What is not here: sockets and HTTP, the real disk, and the interleaving of threads inside one step.

pub mod changes;
pub mod client;
pub mod faults;
pub mod holder;
pub mod judge;
pub mod leases;
pub mod machine;
pub mod member;
pub mod moves;
pub mod network;
pub mod outside;
pub mod plan;
pub mod server;
pub mod stores;
pub mod watcher;
pub mod world;

use std::any::Any;
use std::panic::AssertUnwindSafe;

pub use judge::Summary;
pub use plan::Plan;
pub use world::World;

/// Runs one seed to its end. The error tells what was wrong.
pub fn run(seed: u64, verbose: bool) -> Result<Summary, String> {
    run_plan(Plan::draw(seed), verbose)
        .map_err(|what| format!("{what}\nreplay: cargo run -p etcd-sim -- --seed {seed} --verbose"))
}

/// Runs a plan that may differ from its seed's.
pub fn run_plan(plan: Plan, verbose: bool) -> Result<Summary, String> {
    let seed = plan.seed;
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| World::new(plan, verbose).run()));
    result
        .unwrap_or_else(|payload| Err(format!("panicked: {}", panic_text(&*payload))))
        .map_err(|what| format!("seed {seed}: {what}"))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "without a text".to_owned(),
    }
}
