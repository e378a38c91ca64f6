//! raft's messages and etcd's `raftpb`: the same numbers but for a few fields that only one side has.
//!
//! raft-rs uses the fields 13 to 16 for hints of its own (a requested snapshot, priorities, the term of a commit index); etcd has a vote and
//! local responses there. None of them is ever sent, and none is read. The term of a commit index travels all the same: with a vote, where etcd
//! leaves the hint of a rejected append empty and does not look at it. Without it a leader that was removed could keep the others from electing
//! one: it stands in no election any more, and refuses its vote to those that have not heard of the removal.

use bytes::Bytes;
use etcd_api::raftpb;
use prost::Message as _;
use raft::eraftpb::{self, EntryType, MessageType};

use crate::raft::conf_change::{raft_conf_state, wal_conf_state};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a raft message that cannot be decoded: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("a raft message of kind {0}, which no member sends")]
    Kind(i32),
    #[error("a raft entry of kind {0}, which no member writes")]
    EntryKind(i32),
}

/// What travels; everything else is local to a member.
fn travels(kind: MessageType) -> bool {
    !matches!(
        kind,
        MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
    )
}

fn to_entry(entry: eraftpb::Entry) -> raftpb::Entry {
    raftpb::Entry {
        term: entry.term,
        index: entry.index,
        r#type: entry.entry_type,
        data: present(entry.data),
    }
}

/// Go tells nothing from empty; it writes neither.
fn present(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}

/// Asks for a vote or answers that; its sender says how far it knows the log to be committed.
fn is_of_vote(kind: i32) -> bool {
    matches!(
        MessageType::try_from(kind),
        Ok(MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse)
    )
}

pub fn to_raftpb(message: eraftpb::Message) -> raftpb::Message {
    let hint = match is_of_vote(message.msg_type) {
        true => message.commit_term,
        false => message.reject_hint,
    };
    raftpb::Message {
        r#type: message.msg_type,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.into_iter().map(to_entry).collect(),
        commit: message.commit,
        vote: 0,
        snapshot: message.snapshot.map(to_snapshot),
        reject: message.reject,
        reject_hint: hint,
        context: present(message.context),
        responses: Vec::new(),
    }
}

fn to_snapshot(snapshot: eraftpb::Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.metadata.unwrap_or_default();
    raftpb::Snapshot {
        data: present(snapshot.data),
        metadata: raftpb::SnapshotMetadata {
            conf_state: wal_conf_state(&metadata.conf_state.unwrap_or_default()),
            index: metadata.index,
            term: metadata.term,
        },
    }
}

fn from_entry(entry: raftpb::Entry) -> Result<eraftpb::Entry, WireError> {
    if EntryType::try_from(entry.r#type).is_err() {
        return Err(WireError::EntryKind(entry.r#type));
    }
    Ok(eraftpb::Entry {
        entry_type: entry.r#type,
        term: entry.term,
        index: entry.index,
        data: entry.data.unwrap_or_default(),
        ..eraftpb::Entry::default()
    })
}

fn from_snapshot(snapshot: raftpb::Snapshot) -> eraftpb::Snapshot {
    eraftpb::Snapshot {
        data: Bytes::new(),
        metadata: Some(eraftpb::SnapshotMetadata {
            conf_state: Some(raft_conf_state(&snapshot.metadata.conf_state)),
            index: snapshot.metadata.index,
            term: snapshot.metadata.term,
        }),
    }
}

/// Whatever raft would not know was refused here: it takes an unknown kind for a bug of its own.
pub fn from_raftpb(message: raftpb::Message) -> Result<eraftpb::Message, WireError> {
    if !MessageType::try_from(message.r#type).is_ok_and(travels) {
        return Err(WireError::Kind(message.r#type));
    }
    let entries: Result<Vec<_>, _> = message.entries.into_iter().map(from_entry).collect();
    let (commit_term, reject_hint) = match is_of_vote(message.r#type) {
        true => (message.reject_hint, 0),
        false => (0, message.reject_hint),
    };
    Ok(eraftpb::Message {
        msg_type: message.r#type,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: entries?,
        commit: message.commit,
        snapshot: message.snapshot.map(from_snapshot),
        reject: message.reject,
        reject_hint,
        commit_term,
        context: message.context.unwrap_or_default(),
        ..eraftpb::Message::default()
    })
}

pub fn decode(bytes: impl bytes::Buf) -> Result<eraftpb::Message, WireError> {
    from_raftpb(raftpb::Message::decode(bytes)?)
}

/// Whether raft would crash on it or trust it too much: a question without its context, an append whose entries do not follow.
pub fn is_sound(message: &eraftpb::Message) -> bool {
    let kind = MessageType::try_from(message.msg_type).ok();
    // Without a term it counts as a member's own word; only what is forwarded to a leader has none.
    let forwarded = matches!(kind, Some(MessageType::MsgPropose | MessageType::MsgReadIndex));
    if message.term == 0 && !forwarded {
        return false;
    }
    match kind {
        Some(MessageType::MsgReadIndex | MessageType::MsgReadIndexResp) => message.entries.len() == 1,
        Some(MessageType::MsgPropose) => !message.entries.is_empty(),
        Some(MessageType::MsgSnapshot) => message
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.metadata.as_ref())
            .is_some_and(|metadata| metadata.index > 0),
        Some(MessageType::MsgAppend) => message
            .entries
            .iter()
            .zip(message.index + 1..)
            .all(|(entry, index)| entry.index == index),
        Some(_) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_way_and_carries_nothing_of_raft_rs() {
        let mut message = eraftpb::Message {
            to: 1,
            from: 2,
            term: 3,
            log_term: 3,
            index: 7,
            commit: 6,
            commit_term: 9,
            request_snapshot: 9,
            priority: 9,
            context: "c".into(),
            entries: vec![eraftpb::Entry {
                term: 3,
                index: 8,
                data: "d".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        let bytes = to_raftpb(message.clone()).encode_to_vec();
        let back = decode(&bytes[..]).unwrap();
        (message.commit_term, message.request_snapshot, message.priority) = (0, 0, 0);
        assert_eq!(back, message);
        assert!(is_sound(&back));
    }

    #[test]
    fn a_vote_says_how_far_its_sender_knows_the_log_to_be_committed() {
        let mut message = eraftpb::Message {
            to: 1,
            from: 2,
            term: 3,
            commit: 6,
            commit_term: 2,
            reject: true,
            ..Default::default()
        };
        message.set_msg_type(MessageType::MsgRequestVoteResponse);
        let bytes = to_raftpb(message.clone()).encode_to_vec();
        assert_eq!(decode(&bytes[..]), Ok(message));
    }

    #[test]
    fn etcds_encoding_of_a_heartbeat_is_byte_for_byte() {
        let mut message = eraftpb::Message {
            to: 1,
            from: 2,
            term: 5,
            commit: 4,
            ..Default::default()
        };
        message.set_msg_type(MessageType::MsgHeartbeat);
        // As etcd v3.6 writes it: every field that is not nullable, in the order of its number, and no snapshot.
        let expected = [
            0x08, 8, 0x10, 1, 0x18, 2, 0x20, 5, 0x28, 0, 0x30, 0, 0x40, 4, 0x50, 0, 0x58, 0, 0x68, 0,
        ];
        assert_eq!(to_raftpb(message).encode_to_vec(), expected);
    }

    #[test]
    fn what_no_member_sends_is_refused() {
        for kind in [0, 1, 10, 12, 19, 99, -1] {
            let message = raftpb::Message {
                r#type: kind,
                ..Default::default()
            };
            assert_eq!(from_raftpb(message), Err(WireError::Kind(kind)));
        }
        let message = raftpb::Message {
            r#type: 3,
            entries: vec![raftpb::Entry {
                r#type: 7,
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(from_raftpb(message), Err(WireError::EntryKind(7)));
        let mut question = eraftpb::Message::default();
        question.set_msg_type(MessageType::MsgReadIndex);
        assert!(!is_sound(&question));
    }
}
