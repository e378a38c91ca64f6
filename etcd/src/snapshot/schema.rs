//! etcd's buckets, and which of our meta buckets is which of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use etcd_api::etcdserverpb::AlarmMember;
use etcd_api::membershippb::DowngradeInfoSetRequest;
use etcd_api::raftpb;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::SnapshotError;
use super::view::View;
use crate::config::CLUSTER_VERSION;
use crate::membership::storage_version;
use crate::meta;
use crate::mvcc::hash::bucket_key;
use crate::storage::writer::Meta;

pub const KEY: &str = "key";
pub const META: &str = "meta";
pub const AUTH: &str = "auth";
const MEMBERS: &str = "members";
const CLUSTER: &str = "cluster";

/// All of them; etcd expects some even when they are empty.
const BUCKETS: [&str; 10] = [
    "alarm",
    AUTH,
    "authRoles",
    "authUsers",
    CLUSTER,
    KEY,
    "lease",
    MEMBERS,
    "members_removed",
    META,
];

pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub const TERM: &[u8] = b"term";
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
pub const AUTH_ENABLED: &[u8] = b"authEnabled";

type Pair = (Vec<u8>, Vec<u8>);
/// None when key or value cannot be decoded.
type Convert = fn(&[u8], &[u8]) -> Option<Pair>;

/// One of our meta buckets, or one key of it, and its place in etcd's.
struct Mapping {
    ours: u8,
    theirs: &'static str,
    /// Only this key, which has the same name on both sides.
    only: Option<&'static [u8]>,
    export: Convert,
    import: Convert,
}

impl Mapping {
    /// Keys and values are the same on both sides.
    const fn same(ours: u8, theirs: &'static str, only: Option<&'static [u8]>) -> Mapping {
        Mapping {
            ours,
            theirs,
            only,
            export: copy,
            import: copy,
        }
    }
}

/// What is in no row is neither written nor read. The compacted revision and raft's index are no rows: they come from the view.
static MAPPINGS: &[Mapping] = &[
    Mapping::same(meta::LEASE, "lease", None),
    Mapping {
        ours: meta::ALARM,
        theirs: "alarm",
        only: None,
        export: |_, value| Some((value.to_vec(), Vec::new())),
        import: import_alarm,
    },
    Mapping {
        ours: meta::MEMBERS,
        theirs: MEMBERS,
        only: None,
        export: |key, value| Some((hex(key)?, value.to_vec())),
        import: |key, value| Some((unhex(key)?, value.to_vec())),
    },
    Mapping {
        ours: meta::MEMBERS_REMOVED,
        theirs: "members_removed",
        only: None,
        export: |key, _| Some((hex(key)?, b"removed".to_vec())),
        import: |key, _| Some((unhex(key)?, Vec::new())),
    },
    Mapping::same(meta::CLUSTER, CLUSTER, Some(meta::CLUSTER_VERSION)),
    Mapping {
        ours: meta::CLUSTER,
        theirs: CLUSTER,
        only: Some(meta::DOWNGRADE),
        export: export_downgrade,
        import: import_downgrade,
    },
    Mapping::same(meta::AUTH, AUTH, None),
    Mapping::same(meta::AUTH_USERS, "authUsers", None),
    Mapping::same(meta::AUTH_ROLES, "authRoles", None),
    Mapping {
        ours: meta::CLUSTER,
        theirs: META,
        only: Some(meta::CONF_STATE),
        export: export_conf_state,
        import: import_conf_state,
    },
];

fn copy(key: &[u8], value: &[u8]) -> Option<Pair> {
    Some((key.to_vec(), value.to_vec()))
}

/// etcd keeps the whole alarm in the key.
fn import_alarm(key: &[u8], _: &[u8]) -> Option<Pair> {
    let alarm = AlarmMember::decode(key).ok()?;
    Some((
        meta::alarm_key(alarm.member_id, alarm.alarm).to_vec(),
        key.to_vec(),
    ))
}

/// Ids are hexadecimal text in etcd's buckets, eight bytes in ours.
fn hex(key: &[u8]) -> Option<Vec<u8>> {
    let id = u64::from_be_bytes(key.try_into().ok()?);
    Some(format!("{id:x}").into_bytes())
}

fn unhex(key: &[u8]) -> Option<Vec<u8>> {
    let id = u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok()?;
    Some(id.to_be_bytes().to_vec())
}

/// As Go writes the message as JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ConfStateJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners_next: Vec<u64>,
    auto_leave: bool,
}

fn export_conf_state(key: &[u8], value: &[u8]) -> Option<Pair> {
    let state = raftpb::ConfState::decode(value).ok()?;
    let json = ConfStateJson {
        voters: state.voters,
        learners: state.learners,
        voters_outgoing: state.voters_outgoing,
        learners_next: state.learners_next,
        auto_leave: state.auto_leave,
    };
    Some((key.to_vec(), serde_json::to_vec(&json).ok()?))
}

fn import_conf_state(key: &[u8], value: &[u8]) -> Option<Pair> {
    let json: ConfStateJson = serde_json::from_slice(value).ok()?;
    let state = raftpb::ConfState {
        voters: json.voters,
        learners: json.learners,
        voters_outgoing: json.voters_outgoing,
        learners_next: json.learners_next,
        auto_leave: json.auto_leave,
    };
    Some((key.to_vec(), state.encode_to_vec()))
}

/// As Go writes what is known of a downgrade.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct DowngradeJson {
    #[serde(rename = "target-version")]
    target_version: String,
    enabled: bool,
}

fn export_downgrade(key: &[u8], value: &[u8]) -> Option<Pair> {
    let info = DowngradeInfoSetRequest::decode(value).ok()?;
    let json = DowngradeJson {
        target_version: info.ver,
        enabled: info.enabled,
    };
    Some((key.to_vec(), serde_json::to_vec(&json).ok()?))
}

fn import_downgrade(key: &[u8], value: &[u8]) -> Option<Pair> {
    let json: DowngradeJson = serde_json::from_slice(value).ok()?;
    let info = DowngradeInfoSetRequest {
        enabled: json.enabled,
        ver: json.target_version,
    };
    Some((key.to_vec(), info.encode_to_vec()))
}

/// The rows of all buckets but for the keys, which are too many to be held.
pub struct Rows {
    buckets: BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Rows {
    /// In the order of a database.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &BTreeMap<Vec<u8>, Vec<u8>>)> {
        self.buckets.iter().map(|(name, rows)| (*name, rows))
    }

    fn insert(&mut self, bucket: &'static str, (key, value): Pair) {
        self.buckets.entry(bucket).or_default().insert(key, value);
    }
}

pub fn export(view: &View) -> Result<Rows, SnapshotError> {
    let mut rows = Rows {
        buckets: BUCKETS.map(|name| (name, BTreeMap::new())).into(),
    };
    for ((bucket, key), value) in &view.meta {
        let taking =
            |mapping: &&Mapping| mapping.ours == *bucket && mapping.only.is_none_or(|only| only == &key[..]);
        let Some(mapping) = MAPPINGS.iter().find(taking) else {
            continue;
        };
        let pair = (mapping.export)(key, value).ok_or_else(|| SnapshotError::Meta {
            what: format!("a row of bucket {bucket}"),
        })?;
        rows.insert(mapping.theirs, pair);
    }
    for (key, value) in own_rows(view) {
        rows.insert(META, (key.to_vec(), value));
    }
    Ok(rows)
}

fn own_rows(view: &View) -> Vec<(&'static [u8], Vec<u8>)> {
    let mut rows = vec![
        (CONSISTENT_INDEX, view.index.to_be_bytes().to_vec()),
        (TERM, view.term.to_be_bytes().to_vec()),
    ];
    // Databases of before 3.6 do not say what they are, and their etcd does not start on one that does.
    let cluster_version = view
        .meta
        .get(&(meta::CLUSTER, Bytes::from_static(meta::CLUSTER_VERSION)));
    let cluster_version = cluster_version.map_or_else(Default::default, |text| String::from_utf8_lossy(text));
    let version = storage_version(&cluster_version);
    if version == CLUSTER_VERSION {
        rows.push((STORAGE_VERSION, version.into_bytes()));
    }
    if view.compacted > 0 {
        let revision = bucket_key(view.compacted, 0, false);
        rows.push((SCHEDULED_COMPACT, revision.clone()));
        rows.push((FINISHED_COMPACT, revision));
    }
    rows
}

/// Enters a row of one of etcd's buckets in `meta`. False when it cannot be decoded.
pub fn import(bucket: &[u8], key: &[u8], value: &[u8], meta: &mut Meta) -> bool {
    let taking = |mapping: &&Mapping| {
        mapping.theirs.as_bytes() == bucket && mapping.only.is_none_or(|only| only == key)
    };
    let Some(mapping) = MAPPINGS.iter().find(taking) else {
        return true;
    };
    let Some((key, value)) = (mapping.import)(key, value) else {
        return false;
    };
    meta.insert((mapping.ours, Bytes::from(key)), Bytes::from(value));
    true
}

/// Whether rows of this bucket find a place in our store.
pub fn is_mapped(bucket: &[u8]) -> bool {
    MAPPINGS
        .iter()
        .any(|mapping| mapping.theirs.as_bytes() == bucket && mapping.only.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;

    fn exported(meta: Meta) -> Rows {
        let view = View {
            index: 7,
            term: 3,
            revision: 9,
            compacted: 4,
            meta,
        };
        export(&view).unwrap()
    }

    #[test]
    fn meta_becomes_etcds_buckets_and_comes_back() {
        let member = Member {
            id: 0x8e9e05c52164694d,
            name: "default".into(),
            ..Member::default()
        };
        let alarm = AlarmMember {
            member_id: 5,
            alarm: 1,
        };
        let state = raftpb::ConfState {
            voters: vec![5],
            ..Default::default()
        };
        let downgrade = DowngradeInfoSetRequest {
            enabled: true,
            ver: "3.5.0".into(),
        };
        let meta: Meta = [
            ((meta::LEASE, vec![0, 0, 0, 0, 0, 0, 0, 1]), b"lease".to_vec()),
            (
                (meta::ALARM, meta::alarm_key(5, 1).to_vec()),
                alarm.encode_to_vec(),
            ),
            (
                (meta::MEMBERS, member.id.to_be_bytes().to_vec()),
                serde_json::to_vec(&member).unwrap(),
            ),
            ((meta::CLUSTER, meta::CLUSTER_VERSION.to_vec()), b"3.6.0".to_vec()),
            (
                (meta::CLUSTER, meta::DOWNGRADE.to_vec()),
                downgrade.encode_to_vec(),
            ),
            ((meta::CLUSTER, meta::CONF_STATE.to_vec()), state.encode_to_vec()),
        ]
        .into_iter()
        .map(|((bucket, key), value)| ((bucket, Bytes::from(key)), Bytes::from(value)))
        .collect();
        let rows = exported(meta.clone());
        let row = |bucket: &str, key: &[u8]| rows.buckets[bucket].get(key).map(|value| &value[..]);
        assert_eq!(
            row("members", b"8e9e05c52164694d"),
            Some(&serde_json::to_vec(&member).unwrap()[..])
        );
        assert_eq!(row("alarm", &alarm.encode_to_vec()), Some(&b""[..]));
        assert_eq!(
            row("meta", b"confState"),
            Some(&br#"{"voters":[5],"auto_leave":false}"#[..])
        );
        assert_eq!(row("cluster", b"clusterVersion"), Some(&b"3.6.0"[..]));
        assert_eq!(
            row("cluster", b"downgrade"),
            Some(&br#"{"target-version":"3.5.0","enabled":true}"#[..])
        );
        assert_eq!(row("meta", b"storageVersion"), Some(&b"3.6.0"[..]));
        assert_eq!(row("meta", b"consistent_index"), Some(&7u64.to_be_bytes()[..]));
        assert_eq!(
            row("meta", b"finishedCompactRev"),
            Some(&b"\0\0\0\0\0\0\0\x04_\0\0\0\0\0\0\0\0"[..])
        );
        let mut back = Meta::new();
        for (bucket, items) in rows.each() {
            for (key, value) in items {
                assert!(import(bucket.as_bytes(), key, value, &mut back));
            }
        }
        assert_eq!(back, meta);
    }

    #[test]
    fn what_the_view_says_comes_back_as_no_row_of_ours() {
        let rows = exported(Meta::new());
        let mut back = Meta::new();
        for key in [SCHEDULED_COMPACT, FINISHED_COMPACT, CONSISTENT_INDEX, TERM] {
            let value = &rows.buckets[META][key];
            assert!(import(META.as_bytes(), key, value, &mut back), "{key:?}");
        }
        assert!(back.is_empty(), "{back:?}");
    }

    #[test]
    fn a_cluster_at_an_older_version_writes_that_versions_database() {
        let key = (meta::CLUSTER, Bytes::from_static(meta::CLUSTER_VERSION));
        let rows = exported([(key, Bytes::from_static(b"3.5.0"))].into());
        assert!(!rows.buckets[META].contains_key(STORAGE_VERSION));
    }

    #[test]
    fn buckets_that_etcd_expects_are_there_and_in_order() {
        let rows = exported(Meta::new());
        let names: Vec<&str> = rows.each().map(|(name, _)| name).collect();
        assert_eq!(names, BUCKETS);
    }

    #[test]
    fn rows_that_cannot_be_decoded_are_told() {
        let mut meta = Meta::new();
        assert!(!import(b"members", b"not hex", b"{}", &mut meta));
        assert!(!import(b"alarm", b"\xff\xff", b"", &mut meta));
        assert!(!import(b"meta", b"confState", b"{", &mut meta));
        assert!(!import(b"cluster", b"downgrade", b"{", &mut meta));
        assert!(
            import(b"meta", b"whatever", b"x", &mut meta),
            "etcd has more keys than we"
        );
        assert!(meta.is_empty());
    }
}
