//! Container logs: the CRI line format, reading them with the options of `kubectl logs`, and keeping them small.

pub mod cri_format;
pub mod reader;
pub mod rotation;
