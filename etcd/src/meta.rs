//! The small buckets beside the keys: what they are called and how they are encoded in the store.

use std::collections::BTreeSet;

use bytes::Bytes;
use etcd_api::{etcdserverpb::AlarmMember, leasepb, raftpb};
use prost::Message as _;

use crate::lease::Lessor;
use crate::membership::{Member, Membership};
use crate::storage::writer::Meta;
use crate::storage::{Writer, load::Loaded};

pub const LEASE: u8 = 1;
pub const ALARM: u8 = 2;
pub const MEMBERS: u8 = 3;
pub const CLUSTER: u8 = 4;
pub const REVISION: u8 = 6;
pub const MEMBERS_REMOVED: u8 = 16;

const COMPACTED: &[u8] = b"compacted";
pub const CONF_STATE: &[u8] = b"confState";
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";

/// Raised alarms as (member, kind).
pub type Alarms = BTreeSet<(u64, i32)>;

/// What the buckets say at start.
pub struct State {
    pub membership: Membership,
    pub alarms: Alarms,
    pub compacted: i64,
    pub conf_state: raftpb::ConfState,
}

#[derive(Debug, thiserror::Error)]
#[error("{what} in the store cannot be read: {source}; restore a snapshot into a new data directory")]
pub struct MetaError {
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn bad<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &'static str) -> impl FnOnce(E) -> MetaError {
    move |source| MetaError {
        what,
        source: source.into(),
    }
}

pub fn read(loaded: &Loaded, lessor: &mut Lessor) -> Result<State, MetaError> {
    read_from(loaded.storage.cluster, &loaded.meta, lessor)
}

pub fn read_from(cluster: u64, meta: &Meta, lessor: &mut Lessor) -> Result<State, MetaError> {
    let mut state = State {
        membership: Membership {
            cluster_id: cluster,
            ..Membership::default()
        },
        alarms: Alarms::new(),
        compacted: 0,
        conf_state: raftpb::ConfState::default(),
    };
    for ((bucket, key), value) in meta {
        match (*bucket, &key[..]) {
            (LEASE, _) => {
                let lease = leasepb::Lease::decode(&value[..]).map_err(bad("a lease"))?;
                lessor.restore(lease.id, lease.ttl, lease.remaining_ttl);
            }
            (ALARM, _) => {
                let alarm = AlarmMember::decode(&value[..]).map_err(bad("an alarm"))?;
                state.alarms.insert((alarm.member_id, alarm.alarm));
            }
            (MEMBERS, _) => {
                let member: Member = serde_json::from_slice(value).map_err(bad("a member"))?;
                state.membership.members.insert(member.id, member);
            }
            (MEMBERS_REMOVED, _) => {
                let id = key[..]
                    .try_into()
                    .map_err(bad::<std::array::TryFromSliceError>("a removed member"))?;
                state.membership.removed.insert(u64::from_be_bytes(id));
            }
            (CLUSTER, CLUSTER_VERSION) => {
                state.membership.version = String::from_utf8_lossy(value).into_owned()
            }
            (CLUSTER, CONF_STATE) => {
                state.conf_state = raftpb::ConfState::decode(&value[..]).map_err(bad("the configuration"))?
            }
            (REVISION, COMPACTED) => {
                state.compacted = i64::from_be_bytes(value[..].try_into().map_err(bad::<
                    std::array::TryFromSliceError,
                >(
                    "the compacted revision",
                ))?);
            }
            _ => {}
        }
    }
    Ok(state)
}

fn id_key(id: u64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

pub fn put_lease(writer: &mut Writer, id: i64, ttl_seconds: i64, remaining_seconds: i64) {
    let lease = leasepb::Lease {
        id,
        ttl: ttl_seconds,
        remaining_ttl: remaining_seconds,
    };
    writer.set_meta(LEASE, id_key(id as u64), lease.encode_to_vec().into());
}

pub fn delete_lease(writer: &mut Writer, id: i64) {
    writer.delete_meta(LEASE, &id_key(id as u64));
}

pub fn alarm_key(member: u64, kind: i32) -> Bytes {
    [&member.to_be_bytes()[..], &kind.to_be_bytes()[..]]
        .concat()
        .into()
}

pub fn put_alarm(writer: &mut Writer, member: u64, kind: i32) {
    let alarm = AlarmMember {
        member_id: member,
        alarm: kind,
    };
    writer.set_meta(ALARM, alarm_key(member, kind), alarm.encode_to_vec().into());
}

pub fn delete_alarm(writer: &mut Writer, member: u64, kind: i32) {
    writer.delete_meta(ALARM, &alarm_key(member, kind));
}

pub fn put_member(writer: &mut Writer, member: &Member) {
    let json = serde_json::to_vec(member).unwrap_or_default();
    writer.set_meta(MEMBERS, id_key(member.id), json.into());
}

pub fn remove_member(writer: &mut Writer, id: u64) {
    writer.delete_meta(MEMBERS, &id_key(id));
    writer.set_meta(MEMBERS_REMOVED, id_key(id), Bytes::new());
}

pub fn put_cluster_version(writer: &mut Writer, version: &str) {
    writer.set_meta(
        CLUSTER,
        Bytes::from_static(CLUSTER_VERSION),
        Bytes::copy_from_slice(version.as_bytes()),
    );
}

pub fn put_conf_state(writer: &mut Writer, state: &raft::eraftpb::ConfState) {
    let state = raftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    };
    writer.set_meta(
        CLUSTER,
        Bytes::from_static(CONF_STATE),
        state.encode_to_vec().into(),
    );
}

/// In the meta of a store that is not written yet.
pub fn set_compacted(meta: &mut Meta, revision: i64) {
    meta.insert(
        (REVISION, Bytes::from_static(COMPACTED)),
        Bytes::copy_from_slice(&revision.to_be_bytes()),
    );
}

pub fn put_compacted(writer: &mut Writer, revision: i64) {
    writer.set_meta(
        REVISION,
        Bytes::from_static(COMPACTED),
        Bytes::copy_from_slice(&revision.to_be_bytes()),
    );
}
