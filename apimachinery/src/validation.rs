//! Checks of names, labels, ports and addresses. Each returns upstream's messages; an empty list means valid.

pub const DNS1123_LABEL_MAX: usize = 63;
pub const DNS1123_SUBDOMAIN_MAX: usize = 253;
