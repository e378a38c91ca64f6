//! Container images without a registry and without a builder.
//!
//! Three programs: `pause` holds a pod's namespaces open, `demo-web` is the web server of demos, probes and
//! end-to-end tests, `pack-image` writes static binaries into an OCI archive that
//! `ctr -n k8s.io images import` takes. `deploy/images/build` runs all three steps.
//!
//! [`layer`] turns a list of entries into one tar layer, [`archive`] wraps that layer with its configuration,
//! manifest and index; both give the same bytes for the same input. [`signals`] is the only place with
//! system calls: the programs run as PID 1 of a container, where an unhandled SIGTERM is ignored.

pub mod archive;
pub mod layer;
pub mod signals;
