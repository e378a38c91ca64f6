//! The getters and setters of rust-protobuf, whose manners the `raft` crate has.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
    EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
};

macro_rules! accessors {
    ($message:ident { $($kind:ident $field:ident: $type:ty = $get:ident $set:ident $($more:ident)*;)* }) => {
        impl $message { $(accessors!(@ $kind $field $type, $get $set $($more)*);)* }
    };
    (@ copy $field:ident $type:ty, $get:ident $set:ident) => {
        pub fn $get(&self) -> $type { self.$field }
        pub fn $set(&mut self, value: $type) { self.$field = value; }
    };
    // A number that is not in the enumeration reads as its first: whoever takes messages from outside checks them before.
    (@ read $field:ident $type:ty, $get:ident $set:ident) => {
        pub fn $get(&self) -> $type { self.$field() }
    };
    (@ list $field:ident $type:ty, $get:ident $set:ident $change:ident $take:ident) => {
        pub fn $get(&self) -> &[$type] { &self.$field }
        pub fn $set(&mut self, value: Vec<$type>) { self.$field = value; }
        pub fn $change(&mut self) -> &mut Vec<$type> { &mut self.$field }
        pub fn $take(&mut self) -> Vec<$type> { std::mem::take(&mut self.$field) }
    };
    (@ bytes $field:ident $type:ty, $get:ident $set:ident $take:ident) => {
        pub fn $get(&self) -> &[u8] { &self.$field }
        pub fn $set(&mut self, value: $type) { self.$field = value; }
        pub fn $take(&mut self) -> $type { std::mem::take(&mut self.$field) }
    };
    (@ message $field:ident $type:ty, $get:ident $set:ident $change:ident $take:ident $has:ident) => {
        pub fn $get(&self) -> &$type {
            static EMPTY: LazyLock<$type> = LazyLock::new(<$type>::default);
            self.$field.as_ref().unwrap_or(&EMPTY)
        }
        pub fn $set(&mut self, value: $type) { self.$field = Some(value); }
        pub fn $change(&mut self) -> &mut $type { self.$field.get_or_insert_with(Default::default) }
        pub fn $take(&mut self) -> $type { self.$field.take().unwrap_or_default() }
        pub fn $has(&self) -> bool { self.$field.is_some() }
    };
}

accessors!(Entry {
    read entry_type: EntryType = get_entry_type set_entry_type;
    copy term: u64 = get_term set_term;
    copy index: u64 = get_index set_index;
    bytes data: Bytes = get_data set_data take_data;
    bytes context: Bytes = get_context set_context take_context;
    copy sync_log: bool = get_sync_log set_sync_log;
});

accessors!(SnapshotMetadata {
    message conf_state: ConfState = get_conf_state set_conf_state mut_conf_state take_conf_state has_conf_state;
    copy index: u64 = get_index set_index;
    copy term: u64 = get_term set_term;
});

accessors!(Snapshot {
    bytes data: Bytes = get_data set_data take_data;
    message metadata: SnapshotMetadata = get_metadata set_metadata mut_metadata take_metadata has_metadata;
});

accessors!(Message {
    read msg_type: MessageType = get_msg_type set_msg_type;
    copy to: u64 = get_to set_to;
    copy from: u64 = get_from set_from;
    copy term: u64 = get_term set_term;
    copy log_term: u64 = get_log_term set_log_term;
    copy index: u64 = get_index set_index;
    list entries: Entry = get_entries set_entries mut_entries take_entries;
    copy commit: u64 = get_commit set_commit;
    copy commit_term: u64 = get_commit_term set_commit_term;
    message snapshot: Snapshot = get_snapshot set_snapshot mut_snapshot take_snapshot has_snapshot;
    copy request_snapshot: u64 = get_request_snapshot set_request_snapshot;
    copy reject: bool = get_reject set_reject;
    copy reject_hint: u64 = get_reject_hint set_reject_hint;
    bytes context: Bytes = get_context set_context take_context;
    copy deprecated_priority: u64 = get_deprecated_priority set_deprecated_priority;
    copy priority: i64 = get_priority set_priority;
});

accessors!(HardState {
    copy term: u64 = get_term set_term;
    copy vote: u64 = get_vote set_vote;
    copy commit: u64 = get_commit set_commit;
});

accessors!(ConfState {
    list voters: u64 = get_voters set_voters mut_voters take_voters;
    list learners: u64 = get_learners set_learners mut_learners take_learners;
    list voters_outgoing: u64 = get_voters_outgoing set_voters_outgoing mut_voters_outgoing take_voters_outgoing;
    list learners_next: u64 = get_learners_next set_learners_next mut_learners_next take_learners_next;
    copy auto_leave: bool = get_auto_leave set_auto_leave;
});

accessors!(ConfChange {
    copy id: u64 = get_id set_id;
    read change_type: ConfChangeType = get_change_type set_change_type;
    copy node_id: u64 = get_node_id set_node_id;
    bytes context: Bytes = get_context set_context take_context;
});

accessors!(ConfChangeSingle {
    read change_type: ConfChangeType = get_change_type set_change_type;
    copy node_id: u64 = get_node_id set_node_id;
});

accessors!(ConfChangeV2 {
    read transition: ConfChangeTransition = get_transition set_transition;
    list changes: ConfChangeSingle = get_changes set_changes mut_changes take_changes;
    bytes context: Bytes = get_context set_context take_context;
});

impl Snapshot {
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }
}

impl<Voters, Learners> From<(Voters, Learners)> for ConfState
where
    Voters: IntoIterator<Item = u64>,
    Learners: IntoIterator<Item = u64>,
{
    fn from((voters, learners): (Voters, Learners)) -> Self {
        ConfState {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
            ..ConfState::default()
        }
    }
}
