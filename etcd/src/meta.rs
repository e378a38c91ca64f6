//! The small buckets beside the keys: what they are called and how they are encoded in the store.

use std::array::TryFromSliceError;
use std::collections::BTreeSet;

use bytes::Bytes;
use etcd_api::etcdserverpb::{AlarmMember, AlarmType};
use etcd_api::{authpb, leasepb, membershippb, raftpb};
use prost::Message as _;

use crate::auth::rules::{Record, Rules};
use crate::lease::Lessor;
use crate::membership::{Member, Membership};
use crate::storage::writer::Meta;
use crate::storage::{Writer, load::Loaded};
use crate::v2;

pub const LEASE: u8 = 1;
pub const ALARM: u8 = 2;
pub const MEMBERS: u8 = 3;
pub const CLUSTER: u8 = 4;
pub const REVISION: u8 = 6;
pub const AUTH: u8 = 10;
pub const AUTH_USERS: u8 = 11;
pub const AUTH_ROLES: u8 = 12;
pub const MEMBERS_REMOVED: u8 = 16;
/// Paths of the v2 API's keys.
pub const V2: u8 = 20;

const COMPACTED: &[u8] = b"compacted";
pub const CONF_STATE: &[u8] = b"confState";
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
pub const DOWNGRADE: &[u8] = b"downgrade";
const AUTH_ENABLED: &[u8] = b"authEnabled";
const AUTH_REVISION: &[u8] = b"authRevision";

/// Raised alarms as (member, kind).
pub type Alarms = BTreeSet<(u64, i32)>;

pub fn alarm_member((member_id, alarm): (u64, i32)) -> AlarmMember {
    AlarmMember { member_id, alarm }
}

/// All of one kind; of every kind for NONE.
pub fn alarms_of(alarms: &Alarms, kind: i32) -> Vec<AlarmMember> {
    let wanted = |(_, raised): &&(u64, i32)| kind == AlarmType::None as i32 || kind == *raised;
    alarms.iter().filter(wanted).copied().map(alarm_member).collect()
}

/// What the buckets say at start.
pub struct State {
    pub membership: Membership,
    pub alarms: Alarms,
    pub compacted: i64,
    pub conf_state: raftpb::ConfState,
    pub auth: Rules,
    pub v2: v2::Store,
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
        auth: Rules::default(),
        v2: v2::Store::default(),
    };
    let mut auth = Vec::new();
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
                let id = eight(key, "a removed member")?;
                state.membership.removed.insert(u64::from_be_bytes(id));
            }
            (CLUSTER, CLUSTER_VERSION) => {
                state.membership.version = String::from_utf8_lossy(value).into_owned()
            }
            (CLUSTER, CONF_STATE) => {
                state.conf_state = raftpb::ConfState::decode(&value[..]).map_err(bad("the configuration"))?
            }
            (CLUSTER, DOWNGRADE) => {
                state.membership.downgrade =
                    membershippb::DowngradeInfoSetRequest::decode(&value[..]).map_err(bad("the downgrade"))?
            }
            (AUTH | AUTH_USERS | AUTH_ROLES, _) => auth.extend(read_auth(*bucket, key, value)?),
            (REVISION, COMPACTED) => {
                state.compacted = i64::from_be_bytes(eight(value, "the compacted revision")?);
            }
            (V2, path) => state
                .v2
                .restore(path, value)
                .map_err(bad("a key of the v2 API"))?,
            _ => {}
        }
    }
    state.auth = Rules::restore(auth);
    Ok(state)
}

fn eight(bytes: &[u8], what: &'static str) -> Result<[u8; 8], MetaError> {
    bytes.try_into().map_err(bad::<TryFromSliceError>(what))
}

fn read_auth(bucket: u8, key: &Bytes, value: &Bytes) -> Result<Option<Record>, MetaError> {
    Ok(match (bucket, &key[..]) {
        (AUTH, AUTH_ENABLED) => Some(Record::Enabled(value[..] == [1])),
        (AUTH, AUTH_REVISION) => {
            let revision = eight(value, "the revision of auth")?;
            Some(Record::Revision(u64::from_be_bytes(revision)))
        }
        (AUTH_USERS, _) => Some(Record::User(
            authpb::User::decode(&value[..]).map_err(bad("a user"))?,
        )),
        (AUTH_ROLES, _) => Some(Record::Role(
            authpb::Role::decode(&value[..]).map_err(bad("a role"))?,
        )),
        _ => None,
    })
}

impl v2::Records for Writer {
    fn put(&mut self, key: &str, record: Bytes) {
        self.set_meta(V2, Bytes::copy_from_slice(key.as_bytes()), record);
    }

    fn delete(&mut self, key: &str) {
        self.delete_meta(V2, &Bytes::copy_from_slice(key.as_bytes()));
    }
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

pub fn put_downgrade(writer: &mut Writer, info: &membershippb::DowngradeInfoSetRequest) {
    writer.set_meta(
        CLUSTER,
        Bytes::from_static(DOWNGRADE),
        info.encode_to_vec().into(),
    );
}

/// With etcd's keys and values.
pub fn put_auth(writer: &mut Writer, record: &Record) {
    match record {
        Record::Enabled(enabled) => writer.set_meta(
            AUTH,
            Bytes::from_static(AUTH_ENABLED),
            Bytes::copy_from_slice(&[u8::from(*enabled)]),
        ),
        Record::Revision(revision) => writer.set_meta(
            AUTH,
            Bytes::from_static(AUTH_REVISION),
            Bytes::copy_from_slice(&revision.to_be_bytes()),
        ),
        Record::User(user) => writer.set_meta(AUTH_USERS, user.name.clone(), user.encode_to_vec().into()),
        Record::NoUser(name) => writer.delete_meta(AUTH_USERS, &name.clone().into()),
        Record::Role(role) => writer.set_meta(AUTH_ROLES, role.name.clone(), role.encode_to_vec().into()),
        Record::NoRole(name) => writer.delete_meta(AUTH_ROLES, &name.clone().into()),
    }
}
