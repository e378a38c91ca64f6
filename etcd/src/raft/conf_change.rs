//! Configuration changes: etcd's in the log and on the wire, and what of them concerns raft.

use bytes::Bytes;
use etcd_api::raftpb;
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType};

/// The entry that proposes `change`.
pub fn entry(change: &raftpb::ConfChange) -> Entry {
    Entry {
        entry_type: EntryType::EntryConfChange as i32,
        data: Bytes::from(change.encode_to_vec()),
        ..Entry::default()
    }
}

/// Whether every member will be able to read what another one proposes.
pub fn is_proposable(entry: &Entry) -> bool {
    match EntryType::try_from(entry.entry_type) {
        Ok(EntryType::EntryNormal) => true,
        Ok(EntryType::EntryConfChange) => decode(entry).is_some(),
        _ => false,
    }
}

/// The configuration change in an entry, None for any other entry and for one of an unknown kind.
pub fn decode(entry: &Entry) -> Option<raftpb::ConfChange> {
    if entry.entry_type != EntryType::EntryConfChange as i32 {
        return None;
    }
    let change = raftpb::ConfChange::decode(entry.data.clone()).ok()?;
    raftpb::ConfChangeType::try_from(change.r#type).ok()?;
    Some(change)
}

/// What it means to raft; None where only the member's URLs change.
pub fn for_raft(change: &raftpb::ConfChange) -> Option<ConfChange> {
    let change_type = ConfChangeType::try_from(change.r#type).ok()? as i32;
    Some(ConfChange {
        change_type,
        node_id: change.node_id,
        ..ConfChange::default()
    })
}

/// As raft does it, where raft itself is ahead.
pub fn change(state: &mut ConfState, change: &raftpb::ConfChange) {
    let Some(change) = for_raft(change) else { return };
    for ids in [&mut state.voters, &mut state.learners] {
        ids.retain(|id| *id != change.node_id);
    }
    match ConfChangeType::try_from(change.change_type) {
        Ok(ConfChangeType::AddNode) => state.voters.push(change.node_id),
        Ok(ConfChangeType::AddLearnerNode) => state.learners.push(change.node_id),
        _ => {}
    }
}

/// The configuration as the log and the wire have it.
pub fn wal_conf_state(state: &ConfState) -> raftpb::ConfState {
    raftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

/// The configuration as raft has it.
pub fn raft_conf_state(state: &raftpb::ConfState) -> ConfState {
    ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: i32) -> raftpb::ConfChange {
        raftpb::ConfChange {
            id: 7,
            r#type: kind,
            node_id: 9,
            context: Some("{}".into()),
        }
    }

    #[test]
    fn raft_hears_of_voters_and_learners_and_not_of_addresses() {
        let kinds = [0, 1, 2, 3].map(|kind| for_raft(&change(kind)).map(|change| change.change_type));
        assert_eq!(kinds, [Some(0), Some(1), None, Some(3)]);
        assert_eq!(decode(&entry(&change(2))), Some(change(2)));
    }

    #[test]
    fn a_member_is_a_learner_then_a_voter_then_none() {
        let mut state = ConfState {
            voters: vec![1, 2],
            ..ConfState::default()
        };
        let states = [3, 2, 0, 1].map(|kind| {
            super::change(&mut state, &change(kind));
            (state.voters.clone(), state.learners.clone())
        });
        let (two, three) = (vec![1, 2], vec![1, 2, 9]);
        let learner = (two.clone(), vec![9]);
        assert_eq!(states, [learner.clone(), learner, (three, vec![]), (two, vec![])]);
    }

    #[test]
    fn an_unknown_kind_is_no_proposal() {
        assert!(is_proposable(&entry(&change(3))));
        assert!(!is_proposable(&entry(&change(9))));
        let second_version = Entry {
            entry_type: EntryType::EntryConfChangeV2 as i32,
            ..Entry::default()
        };
        assert!(!is_proposable(&second_version));
    }
}
