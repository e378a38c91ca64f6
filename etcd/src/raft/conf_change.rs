//! Configuration changes: etcd's on the wire, in the log and when they are applied; raft's only where raft itself reads them.
//!
//! The two number their kinds differently (etcd's learner is 3, raft's is 2), and raft cannot read a number that it does not know. It reads
//! an entry's data in one place, when a leader accepts a proposal, and of it only whether it changes anything. There a second kind is
//! put behind etcd's bytes, of which protobuf takes the last; whatever leaves raft is cut back to etcd's bytes.

use etcd_api::raftpb;
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType};

/// Field 2, kind 0. etcd's encoding never ends so: behind its kind it always writes the node's id.
const MARK: [u8; 2] = [0x10, 0x00];

/// The entry that proposes `change`.
pub fn entry(change: &raftpb::ConfChange) -> Entry {
    let mut data = change.encode_to_vec();
    data.extend_from_slice(&MARK);
    Entry {
        entry_type: EntryType::EntryConfChange as i32,
        data,
        ..Entry::default()
    }
}

/// Makes a proposal that another member forwarded readable for raft. False when nobody could read it.
pub fn mark(entry: &mut Entry) -> bool {
    match EntryType::from_i32(entry.entry_type) {
        Some(EntryType::EntryNormal) => true,
        Some(EntryType::EntryConfChange) if decode(entry).is_some() => {
            entry.data.extend_from_slice(&MARK);
            true
        }
        _ => false,
    }
}

/// An entry's data as etcd has it.
pub fn data(entry: &Entry) -> &[u8] {
    match entry.entry_type == EntryType::EntryConfChange as i32 {
        true => entry.data.strip_suffix(&MARK).unwrap_or(&entry.data),
        false => &entry.data,
    }
}

/// The configuration change in an entry, None for any other entry and for one of an unknown kind.
pub fn decode(entry: &Entry) -> Option<raftpb::ConfChange> {
    if entry.entry_type != EntryType::EntryConfChange as i32 {
        return None;
    }
    let change = raftpb::ConfChange::decode(data(entry)).ok()?;
    raftpb::ConfChangeType::try_from(change.r#type).ok()?;
    Some(change)
}

/// What it means to raft; None where only the member's URLs change.
pub fn for_raft(change: &raftpb::ConfChange) -> Option<ConfChange> {
    use raftpb::ConfChangeType as Etcd;
    let kind = match Etcd::try_from(change.r#type).ok()? {
        Etcd::ConfChangeAddNode => ConfChangeType::AddNode,
        Etcd::ConfChangeRemoveNode => ConfChangeType::RemoveNode,
        Etcd::ConfChangeAddLearnerNode => ConfChangeType::AddLearnerNode,
        Etcd::ConfChangeUpdateNode => return None,
    };
    Some(ConfChange {
        change_type: kind as i32,
        node_id: change.node_id,
        ..ConfChange::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learner() -> raftpb::ConfChange {
        raftpb::ConfChange {
            id: 7,
            r#type: raftpb::ConfChangeType::ConfChangeAddLearnerNode as i32,
            node_id: 9,
            context: Some("{}".into()),
        }
    }

    #[test]
    fn what_leaves_is_etcds_and_what_raft_reads_is_known_to_it() {
        let mut entry = entry(&learner());
        assert_eq!(data(&entry), learner().encode_to_vec());
        assert_eq!(decode(&entry), Some(learner()));
        entry.data = learner().encode_to_vec();
        assert!(mark(&mut entry) && entry.data.ends_with(&MARK));
        let change = for_raft(&learner()).unwrap();
        assert_eq!(change.change_type, ConfChangeType::AddLearnerNode as i32);
    }

    #[test]
    fn an_unknown_kind_is_refused_before_raft_sees_it() {
        let unknown = raftpb::ConfChange {
            r#type: 9,
            ..learner()
        };
        let mut entry = Entry {
            entry_type: EntryType::EntryConfChange as i32,
            data: unknown.encode_to_vec(),
            ..Entry::default()
        };
        assert!(!mark(&mut entry));
    }
}
