//! How Go prints and parses: the originals' bytes come out of these.

pub mod humanize;
pub mod json;
pub mod quote;
pub mod scan;
pub mod strconv;
pub mod tabwriter;
