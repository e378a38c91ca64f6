//! End-to-end tests: real processes, the real kubectl, Debian's etcdctl, real containerd.

mod api_server;
mod control_plane;
mod faults;
mod kubectl;
mod nodes;
mod scheduling;
