//! Configuration changes of both forms, seen as one.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

pub fn new_conf_change_single(node_id: u64, change_type: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle {
        change_type: change_type as i32,
        node_id,
    }
}

pub trait ConfChangeI {
    fn into_v2(self) -> ConfChangeV2;
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;
    /// None for what has no old form.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        ConfChangeV2 {
            transition: ConfChangeTransition::Auto as i32,
            changes: vec![ConfChangeSingle {
                change_type: self.change_type,
                node_id: self.node_id,
            }],
            context: self.context,
        }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeV2 {
    /// Whether the change goes through joint consensus, and then whether the joint state is left by itself. One change at a time
    /// needs none unless it is asked for.
    pub fn enter_joint(&self) -> Option<bool> {
        match self.get_transition() {
            ConfChangeTransition::Auto if self.changes.len() <= 1 => None,
            ConfChangeTransition::Auto | ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Explicit => Some(false),
        }
    }

    /// The change that says nothing ends the joint state.
    pub fn leave_joint(&self) -> bool {
        self.get_transition() == ConfChangeTransition::Auto && self.changes.is_empty()
    }
}

/// Whether two states name the same members in the same parts, whatever their order.
pub fn conf_state_eq(one: &ConfState, other: &ConfState) -> bool {
    let same = |one: &[u64], other: &[u64]| {
        one == other || one.iter().collect::<BTreeSet<_>>() == other.iter().collect::<BTreeSet<_>>()
    };
    one.auto_leave == other.auto_leave
        && same(&one.voters, &other.voters)
        && same(&one.learners, &other.learners)
        && same(&one.voters_outgoing, &other.voters_outgoing)
        && same(&one.learners_next, &other.learners_next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_change_is_simple_and_several_are_joint() {
        let one = |id| new_conf_change_single(id, ConfChangeType::AddNode);
        let change = |transition, changes| ConfChangeV2 {
            transition: transition as i32,
            changes,
            ..ConfChangeV2::default()
        };
        use ConfChangeTransition::{Auto, Explicit, Implicit};
        assert_eq!(change(Auto, vec![one(1)]).enter_joint(), None);
        assert_eq!(change(Auto, vec![one(1), one(2)]).enter_joint(), Some(true));
        assert_eq!(change(Implicit, vec![one(1)]).enter_joint(), Some(true));
        assert_eq!(change(Explicit, vec![one(1)]).enter_joint(), Some(false));
        assert!(change(Auto, vec![]).leave_joint());
        assert!(!change(Explicit, vec![]).leave_joint());
    }

    #[test]
    fn the_order_of_members_says_nothing() {
        let one = ConfState::from((vec![1, 2, 3], vec![4]));
        assert!(conf_state_eq(&one, &ConfState::from((vec![3, 1, 2], vec![4]))));
        assert!(!conf_state_eq(&one, &ConfState::from((vec![1, 2], vec![4]))));
        assert!(!conf_state_eq(&one, &ConfState::from((vec![1, 2, 3], vec![]))));
    }
}
