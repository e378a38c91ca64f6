//! Which strategy a resource has. One line for each kind that needs its own.

use super::strategy::{DefaultStrategy, NameRule, Strategy};

/// What strategies share with the rest of the server.
#[derive(Clone)]
pub struct Shared {
    pub allow_privileged: bool,
}

pub fn of(group: &str, resource: &str, _shared: &Shared) -> Box<dyn Strategy> {
    match (group, resource) {
        ("rbac.authorization.k8s.io", _) => Box::new(DefaultStrategy { names: NameRule::PathSegment }),
        _ => Box::new(DefaultStrategy { names: NameRule::Subdomain }),
    }
}
