//! What a configuration change does, as etcd's entries say it.

use etcd_api::raftpb;
use serde::{Deserialize, Serialize};

use super::Member;

/// The context of a configuration change: a member, and whether it only becomes a voter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeContext {
    #[serde(flatten)]
    pub member: Member,
    #[serde(rename = "isPromote", default)]
    pub is_promote: bool,
}

/// What a configuration change does, read from its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Add(Member),
    Promote(u64),
    Remove(u64),
    Update(Member),
}

impl Change {
    /// None when the entry's context does not fit its kind.
    pub fn read(change: &raftpb::ConfChange) -> Option<Change> {
        use raftpb::ConfChangeType as Kind;
        let context = change.context.as_deref().unwrap_or_default();
        let parsed = || {
            let context: ChangeContext = serde_json::from_slice(context).ok()?;
            (context.member.id == change.node_id).then_some(context)
        };
        match Kind::try_from(change.r#type).ok()? {
            Kind::ConfChangeRemoveNode => Some(Change::Remove(change.node_id)),
            Kind::ConfChangeUpdateNode => Some(Change::Update(parsed()?.member)),
            Kind::ConfChangeAddNode | Kind::ConfChangeAddLearnerNode => {
                let context = parsed()?;
                Some(match context.is_promote {
                    true => Change::Promote(change.node_id),
                    false => Change::Add(context.member),
                })
            }
        }
    }

    /// As etcd puts it into an entry.
    pub fn entry(&self, id: u64) -> raftpb::ConfChange {
        use raftpb::ConfChangeType as Kind;
        let (kind, node_id, context) = match self {
            Change::Add(member) => {
                let kind = match member.is_learner {
                    true => Kind::ConfChangeAddLearnerNode,
                    false => Kind::ConfChangeAddNode,
                };
                (kind, member.id, serde_json::to_vec(member))
            }
            Change::Promote(id) => {
                let context = ChangeContext {
                    member: Member {
                        id: *id,
                        ..Member::default()
                    },
                    is_promote: true,
                };
                (Kind::ConfChangeAddNode, *id, serde_json::to_vec(&context))
            }
            Change::Remove(id) => (Kind::ConfChangeRemoveNode, *id, Ok(Vec::new())),
            Change::Update(member) => (Kind::ConfChangeUpdateNode, member.id, serde_json::to_vec(member)),
        };
        // Strings, numbers and lists always have a JSON form.
        let context = context.unwrap_or_default();
        raftpb::ConfChange {
            id,
            r#type: kind as i32,
            node_id,
            context: (!context.is_empty()).then(|| context.into()),
        }
    }
}
