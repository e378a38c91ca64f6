//! AlwaysAdmit and AlwaysDeny.

use super::{Operation, Plugin, Refusal, Verdict, forbidden};
use crate::registry::admission::Attributes;

pub struct AlwaysAdmit;

impl Plugin for AlwaysAdmit {
    fn operations(&self) -> &'static [Operation] {
        &[]
    }
}

pub struct AlwaysDeny;

impl Plugin for AlwaysDeny {
    fn operations(&self) -> &'static [Operation] {
        &[
            Operation::Create,
            Operation::Update,
            Operation::Delete,
            Operation::Connect,
        ]
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        Err::<(), Refusal>(forbidden(a, "admission control is denying all modifications"))
    }
}
