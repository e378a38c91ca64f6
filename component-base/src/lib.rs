//! What every Ferrokube daemon meets before it does anything of its own. No Kubernetes types.
//!
//! The way of a daemon through this crate, which is also the reading order:
//!
//! 1. [`run`] parses the command line with [`flags`]; bad usage ends here with exit code 1 and nothing opened.
//! 2. [`logging`] installs klog lines on stderr, and every flag value is logged as upstream does.
//! 3. The daemon's own code reads its `--config` file with [`config`], loads certificates with [`tls`],
//!    binds with [`serve::bind`] and serves with [`serve::serve`]; handlers answer in [`http`] bodies.
//! 4. [`health`], [`metrics`] and [`version`] answer the endpoints that probes and Prometheus ask.
//! 5. [`sd_notify`] tells systemd about readiness; [`drain`] tells everything that it is time to stop.
//!
//! [`dns`] finds services by name.
//! Certificates, keys and CA files are read again when they change ([`watch`]); nothing here polls.
//! What is not here: authentication, authorization, API objects, clients.

pub mod allocator;
pub mod config;
pub mod dns;
pub mod drain;
pub mod flags;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
mod program;
mod run;
pub mod sd_notify;
pub mod serve;
pub mod tls;
pub mod version;
pub mod watch;

pub use run::run;
