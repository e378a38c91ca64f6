use std::path::{Path, PathBuf};
use std::sync::Arc;

use bbolt::Database;
use bytes::Bytes;
use etcd_api::leasepb;
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;

use super::restore::Restore;
use super::*;
use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::disk::real::RealDisk;
use crate::lease::Lessor;
use crate::meta;
use crate::mvcc::Store;
use crate::mvcc::key::KeyRange;
use crate::storage::tests::Fixture;
use crate::storage::writer::Meta;
use crate::wal::Wal;
use crate::wal::format::Ids;

const IDS: Ids = Ids {
    cluster: 9,
    member: 1,
};

/// a: 2, 4, 6; b: 3; big: 5.
fn store() -> Arc<Store> {
    let mut fixture = Fixture::new();
    for (main, version, key, value) in [
        (2, 1, "a", vec![1; 10]),
        (3, 1, "b", vec![]),
        (4, 2, "a", vec![2; 300]),
        (5, 1, "big", vec![3; 20_000]),
        (6, 3, "a", vec![4; 5000]),
    ] {
        fixture.put(main, version, key, &value);
    }
    let versions = std::mem::take(&mut fixture.versions).into_iter().collect();
    Arc::new(Store::open(fixture.storage.clone(), versions, 6, 0))
}

fn lease_row() -> ((u8, Bytes), Bytes) {
    let lease = leasepb::Lease {
        id: 77,
        ttl: 60,
        remaining_ttl: 0,
    };
    let key = Bytes::copy_from_slice(&77i64.to_be_bytes());
    ((meta::LEASE, key), lease.encode_to_vec().into())
}

fn view(revision: i64, compacted: i64) -> View {
    View {
        index: 12,
        term: 3,
        revision,
        compacted,
        meta: Meta::from([lease_row()]),
    }
}

fn save(store: &Arc<Store>, view: View, dir: &Path) -> PathBuf {
    let path = dir.join("snapshot.db");
    let export = Export::take(store, || Some(view)).unwrap();
    let mut bytes = Vec::new();
    export.write(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, export.bytes() + 32);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn revisions(database: &Database) -> Vec<i64> {
    let mut revisions = Vec::new();
    read::each_key(database, |_, _, row| {
        revisions.push(row.main);
        Ok(())
    })
    .unwrap();
    revisions
}

fn history(store: &Store) -> Vec<(String, Vec<i64>)> {
    let mut out = Vec::new();
    store.walk_history(&KeyRange::all(), 0, |key, history| {
        let mains = history.iter().map(|version| version.main).collect();
        out.push((String::from_utf8_lossy(key).into_owned(), mains));
    });
    out
}

#[test]
fn a_snapshot_holds_the_history_of_its_revision_and_no_more() {
    let dir = tempfile::TempDir::new().unwrap();
    for (revision, compacted, expected) in [
        (6, 0, vec![2, 3, 4, 5, 6]),
        (5, 0, vec![2, 3, 4, 5]),
        (6, 4, vec![3, 4, 5, 6]),
        (6, 6, vec![3, 5, 6]),
    ] {
        let path = save(&store(), view(revision, compacted), dir.path());
        let database = read::open(&path, false).unwrap();
        assert_eq!(revisions(&database), expected);
        let status = read::status(&database).unwrap();
        assert_eq!((status.revision, status.total_key), (revision, 3));
        assert_eq!(status.version, "3.6.0");
        let contents = read::contents(&database).unwrap();
        assert_eq!(
            (contents.index, contents.term, contents.compacted),
            (12, 3, compacted)
        );
        assert_eq!(contents.meta, Meta::from([lease_row()]));
    }
}

#[test]
fn a_compaction_waits_until_the_history_was_seen() {
    let dir = tempfile::TempDir::new().unwrap();
    let store = store();
    let (sweeper, begun) = (store.clone(), Arc::new(std::sync::Barrier::new(2)));
    let beginning = begun.clone();
    let sweeping = std::thread::spawn(move || {
        beginning.wait();
        sweeper.set_compacted(6);
        sweeper.compact_index(6)
    });
    let export = Export::take(&store, || {
        begun.wait();
        // Long enough for the sweep to be done if nothing held it up.
        std::thread::sleep(std::time::Duration::from_millis(100));
        Some(view(6, 0))
    })
    .unwrap();
    assert_eq!(sweeping.join().unwrap(), 2, "it goes on afterwards");
    let path = dir.path().join("db");
    std::fs::write(&path, export.write_database(Vec::new()).unwrap()).unwrap();
    assert_eq!(revisions(&Database::open(&path).unwrap()), [2, 3, 4, 5, 6]);
}

#[test]
fn a_lagging_member_gets_the_whole_store() {
    let dir = tempfile::TempDir::new().unwrap();
    let store = store();
    let database = Database::open(&save(&store, view(6, 3), dir.path())).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(FakeDisk::new());
    let frame = load::whole(&disk, Path::new("/new"), IDS, &database).unwrap();
    assert_eq!((frame.index, frame.term, frame.revision), (12, 3, 6));
    let loaded = crate::storage::load::load(disk, Path::new("/new"), IDS.cluster, 1 << 24).unwrap();
    assert_eq!(loaded.frame, frame);
    let mut lessor = Lessor::new(0);
    let state = meta::read(&loaded, &mut lessor).unwrap();
    assert_eq!((state.compacted, lessor.ids()), (3, vec![77]));
    let copy = Store::open(loaded.storage.clone(), loaded.versions, 6, 3);
    store.set_compacted(3);
    store.compact_index(3);
    assert_eq!(history(&copy), history(&store));
    for revision in [0, 4, 5] {
        assert_eq!(
            copy.hash_kv(revision).unwrap().hash,
            store.hash_kv(revision).unwrap().hash
        );
        assert_eq!(
            read::hash_kv(&database, revision).unwrap().hash,
            store.hash_kv(revision).unwrap().hash
        );
    }
    let kv = |store: &Store| {
        let loc = store.get(b"a", 6).unwrap().loc;
        store.storage.read(&store.storage.segments(), loc).unwrap()
    };
    assert_eq!(kv(&copy), kv(&store));
    assert_eq!(KeyValue::decode(kv(&copy)).unwrap().value, vec![4; 5000]);
}

fn restore<'a>(snapshot: &'a Path, data_dir: &'a Path, peers: &'a [String]) -> Restore<'a> {
    Restore {
        snapshot,
        name: "x",
        data_dir,
        wal_dir: None,
        initial_cluster: "x=http://localhost:1,y=http://localhost:2",
        initial_cluster_token: "token",
        advertise_peer_urls: peers,
        skip_hash_check: false,
        bump_revision: 0,
    }
}

#[test]
fn a_new_cluster_begins_with_its_own_members_and_index() {
    let dir = tempfile::TempDir::new().unwrap();
    let snapshot = save(&store(), view(6, 0), dir.path());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (data, peers) = (dir.path().join("data"), ["http://localhost:1".to_owned()]);
    let bumped = Restore {
        bump_revision: 1000,
        ..restore(&snapshot, &data, &peers)
    };
    bumped.run(&disk).unwrap();
    let ids = Wal::identify(&*disk, &data.join("member/wal")).unwrap().unwrap();
    let (_, replay) = Wal::open(disk.clone(), &data.join("member/wal"), ids, 1 << 24).unwrap();
    let loaded =
        crate::storage::load::load(disk.clone(), &data.join("member/store"), ids.cluster, 1 << 24).unwrap();
    let state = meta::read(&loaded, &mut Lessor::new(0)).unwrap();
    assert_eq!(state.membership.members.len(), 2);
    assert!(state.membership.members.contains_key(&ids.member));
    assert_eq!(state.conf_state.voters.len(), 2);
    assert_eq!((loaded.frame.revision, state.compacted), (1006, 1006));
    assert_eq!(
        (
            replay.snapshot.index,
            loaded.frame.index,
            replay.hard_state.commit
        ),
        (2, 2, 2)
    );
    assert!(matches!(
        restore(&snapshot, &data, &peers).run(&disk),
        Err(restore::RestoreError::DataDir(_))
    ));
}

#[test]
fn what_is_damaged_is_refused_and_leaves_nothing_behind() {
    let dir = tempfile::TempDir::new().unwrap();
    let snapshot = save(&store(), view(6, 0), dir.path());
    let good = std::fs::read(&snapshot).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (data, peers) = (dir.path().join("data"), ["http://localhost:1".to_owned()]);
    let mut damaged = good.clone();
    damaged[9000] ^= 1;
    for (bytes, skip_hash_check, expected) in [
        (&damaged[..], false, "expected sha256"),
        (&good[..good.len() - 32], false, "snapshot missing hash"),
        (&good[..good.len() - 5000], true, "truncated"),
        (b"nothing", true, "not a bbolt database"),
    ] {
        std::fs::write(&snapshot, bytes).unwrap();
        let attempt = Restore {
            skip_hash_check,
            ..restore(&snapshot, &data, &peers)
        };
        let error = attempt.run(&disk).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("snapshot.db"),
            "{error}"
        );
        assert!(load::is_empty_or_missing(&data).unwrap());
    }
    std::fs::write(&snapshot, &good[..good.len() - 32]).unwrap();
    let copied = Restore {
        skip_hash_check: true,
        ..restore(&snapshot, &data, &peers)
    };
    copied.run(&disk).unwrap();
}

#[test]
fn what_is_reclaimed_while_a_snapshot_is_sent_stays_readable() {
    let store = store();
    let export = Export::take(&store, || Some(view(6, 0))).unwrap();
    let numbers: Vec<u32> = store
        .storage
        .segments()
        .iter()
        .map(|segment| segment.number)
        .collect();
    store.storage.remove(&numbers);
    assert!(export.write_database(Vec::new()).is_ok());
    assert!(Export::take(&store, || Some(view(6, 0))).is_err());
    assert!(matches!(
        Export::take(&store, || None),
        Err(SnapshotError::Stopped)
    ));
}

/// A database with these rows, as another program may have written it.
fn database(dir: &Path, buckets: &[(&str, &[(Vec<u8>, Vec<u8>)])]) -> Database {
    let mut plan = bbolt::Plan::default();
    for (name, rows) in buckets {
        plan.bucket(name.as_bytes()).unwrap();
        rows.iter()
            .for_each(|(key, value)| plan.item(key, value.len()).unwrap());
    }
    let mut writer = bbolt::Writer::new(plan.finish().unwrap(), Vec::new()).unwrap();
    for (name, rows) in buckets {
        writer.bucket(name.as_bytes()).unwrap();
        rows.iter()
            .for_each(|(key, value)| writer.item(key, value).unwrap());
    }
    let path = dir.join("foreign.db");
    std::fs::write(&path, writer.finish().unwrap()).unwrap();
    Database::open(&path).unwrap()
}

fn put_row(main: i64, mod_revision: i64) -> (Vec<u8>, Vec<u8>) {
    let kv = KeyValue {
        key: "a".into(),
        create_revision: mod_revision,
        mod_revision,
        version: 1,
        ..Default::default()
    };
    (crate::mvcc::hash::bucket_key(main, 0, false), kv.encode_to_vec())
}

fn load_whole(database: &Database) -> Result<i64, SnapshotError> {
    let disk: Arc<dyn Disk> = Arc::new(FakeDisk::new());
    load::whole(&disk, Path::new("/new"), IDS, database).map(|frame| frame.revision)
}

#[test]
fn rows_of_another_program_are_checked() {
    let dir = tempfile::TempDir::new().unwrap();
    let key = |rows: &[(Vec<u8>, Vec<u8>)]| load_whole(&database(dir.path(), &[("key", rows)]));
    assert_eq!(key(&[]).unwrap(), 1);
    // The real `etcdutl snapshot restore --bump-revision` leaves such a row.
    let bumped = (crate::mvcc::hash::bucket_key(100, 0, false), Vec::new());
    assert_eq!(key(&[put_row(2, 2), bumped]).unwrap(), 100);
    for (row, expected) in [
        (put_row(3, 2), "the revision 3/0 does not fit its key"),
        ((vec![1, 2, 3], Vec::new()), "cannot be decoded"),
        ((vec![b'_'; 17], vec![0xff]), "cannot be decoded"),
    ] {
        let error = key(&[row]).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("foreign.db"),
            "{error}"
        );
    }
    let meta = [(b"consistent_index".to_vec(), vec![1])];
    let error = load_whole(&database(dir.path(), &[("meta", &meta)])).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"consistent_index\" of bucket \"meta\""),
        "{error}"
    );
}

/// Users and their passwords must not be lost silently.
#[test]
fn authentication_is_kept_or_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let enabled = |value: u8| {
        let rows = [(schema::AUTH_ENABLED.to_vec(), vec![value])];
        load_whole(&database(dir.path(), &[(schema::AUTH, &rows)]))
    };
    assert!(enabled(0).is_ok());
    let is_kept = schema::is_mapped(schema::AUTH.as_bytes());
    assert_eq!(matches!(enabled(1), Err(SnapshotError::Auth { .. })), !is_kept);
}
