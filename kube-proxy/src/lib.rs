//! kube-proxy: Services on this node, by nftables over netlink.
//!
//! The way of one change, which is also the reading order:
//!
//! 1. [`app`]: the informers hear of a Service or an EndpointSlice and mark the Service as changed.
//! 2. [`services`] makes plain Service ports of the objects: cluster IP, node port, usable endpoints.
//! 3. [`ruleset`] says which elements and chains a Service port puts into the kernel; [`claims`] settles who gets a
//!    frontend that two Services name.
//! 4. [`proxier`] compares with what it committed and makes one batch of the difference.
//! 5. [`nft`] encodes the batch and sends it; the kernel applies all of it or nothing.
//! 6. [`conntrack`] deletes UDP flows to endpoints that are gone.
//!
//! Nothing is listed, nothing is forked, and nothing is written by anybody else in the table `kube-proxy`. When kube-proxy
//! stops, the rules stay. Not here: topology hints, IPVS and iptables rules (those modes are served by this engine).

mod app;
mod claims;
mod conntrack;
mod healthcheck;
mod metrics;
pub mod nft;
mod options;
pub mod proxier;
pub mod ruleset;
mod services;
mod sysctl;
#[cfg(test)]
mod tests;

pub use app::run;
pub use options::flags;
