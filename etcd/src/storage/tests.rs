use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;

use super::load::{self, Loaded};
use super::record::{FrameHeader, Version};
use super::*;
use crate::disk::fake::FakeDisk;
use crate::disk::is_full;
use crate::mvcc::history::History;
use crate::mvcc::key::KeyRange;
use crate::storage::keeper::Keeper;
use crate::storage::reclaim::{Liveness, Move};

const SEGMENT: u64 = 64 * 1024;

pub(crate) struct Fixture {
    pub disk: FakeDisk,
    pub storage: Arc<Storage>,
    pub writer: Writer,
    pub versions: Vec<(Bytes, Version)>,
}

/// An index that believes everything is alive.
struct Everything;

impl Liveness for Everything {
    fn live(&self, items: &[(Bytes, Version)]) -> Vec<bool> {
        vec![true; items.len()]
    }

    fn relocate(&self, moves: &[Move]) -> Vec<bool> {
        vec![true; moves.len()]
    }
}

pub(crate) fn load(disk: &FakeDisk) -> Result<Loaded, StorageError> {
    load_sized(disk, SEGMENT)
}

fn load_sized(disk: &FakeDisk, segment_bytes: u64) -> Result<Loaded, StorageError> {
    load::load(Arc::new(disk.clone()), Path::new("/store"), 9, segment_bytes)
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::sized(SEGMENT)
    }

    fn sized(segment_bytes: u64) -> Fixture {
        let disk = FakeDisk::new();
        let loaded = load_sized(&disk, segment_bytes).unwrap();
        let writer = Writer::new(loaded.storage.clone(), None, loaded.meta, loaded.frame).unwrap();
        Fixture {
            disk,
            storage: loaded.storage,
            writer,
            versions: Vec::new(),
        }
    }

    /// Every put is a frame of its own.
    pub(crate) fn put(&mut self, main: i64, version: i64, key: &str, value: &[u8]) -> Version {
        let kv = KeyValue {
            key: key.to_owned().into(),
            create_revision: main - version + 1,
            mod_revision: main,
            version,
            value: value.to_vec().into(),
            lease: 0,
        };
        let new = Version {
            main,
            create: main - version + 1,
            version,
            lease: 0,
            sub: 0,
            loc: Default::default(),
        };
        let new = self.writer.put(new, |out| kv.encode(out).unwrap());
        self.writer
            .flush(FrameHeader {
                index: main as u64,
                term: 1,
                revision: main,
            })
            .unwrap();
        self.versions.push((Bytes::copy_from_slice(key.as_bytes()), new));
        new
    }

    pub(crate) fn keep(&mut self) {
        self.keeper().checkpoint().unwrap();
    }

    fn keeper(&self) -> Keeper {
        Keeper::new(
            self.storage.clone(),
            1,
            self.writer.written(),
            Arc::new(Everything),
            Default::default(),
        )
    }
}

/// What MANIFEST does not list is removed at the next start.
#[test]
fn nothing_is_durable_that_manifest_does_not_say() {
    let mut store = Fixture::new();
    store.put(5, 1, "a", b"");
    let mut keeper = store.keeper();
    store.disk.set_capacity(Some(0));
    assert!(is_full(&keeper.checkpoint().unwrap_err()));
    assert_eq!(keeper.durable_index(), 0);
    store.disk.set_capacity(None);
    keeper.checkpoint().unwrap();
    assert_eq!(keeper.durable_index(), 5);
}

fn value(kv: &Bytes) -> Bytes {
    KeyValue::decode(kv.clone()).unwrap().value
}

#[test]
fn records_come_back_in_the_order_in_which_they_were_asked() {
    let mut fixture = Fixture::new();
    let versions: Vec<Version> = (1..=50)
        .map(|main| fixture.put(main, 1, &format!("k{main}"), &[main as u8; 300]))
        .collect();
    let asked: Vec<_> = [40, 3, 4, 49, 0]
        .iter()
        .map(|place: &usize| versions[*place].loc)
        .collect();
    let read = fixture
        .storage
        .read_many(&fixture.storage.segments(), &asked)
        .unwrap();
    assert_eq!(
        read.iter().map(|kv| value(kv)[0]).collect::<Vec<_>>(),
        [41, 4, 5, 50, 1]
    );
}

#[test]
fn a_buffer_that_is_used_again_holds_what_was_asked_for_last() {
    let mut fixture = Fixture::new();
    let versions: Vec<Version> = (1..=30)
        .map(|main| fixture.put(main, 1, &format!("k{main}"), &[main as u8; 900]))
        .collect();
    let mut fetched = fetch::Fetched::default();
    for places in [&[3, 1, 29, 2][..], &[0], &[], &[7, 8, 30 - 1, 9, 0]] {
        let locs: Vec<Loc> = places.iter().map(|place: &usize| versions[*place].loc).collect();
        let segments = fixture.storage.segments();
        fetched.read(&fixture.storage, &segments, &locs).unwrap();
        let keys: Vec<_> = fetched
            .iter()
            .map(|kv| record::key_of(kv).unwrap().to_vec())
            .collect();
        let wanted: Vec<_> = places
            .iter()
            .map(|place| format!("k{}", place + 1).into_bytes())
            .collect();
        assert_eq!(keys, wanted);
    }
}

/// Sealing reads a window of a segment at a time: small frames, and one that is larger than the window.
#[test]
fn the_footer_lists_what_a_segment_holds_however_its_frames_lie() {
    const LARGE: u64 = 2 * 1024 * 1024;
    let mut fixture = Fixture::sized(LARGE);
    let first = fixture.storage.segments()[0].clone();
    let mut main = 1;
    while !fixture.writer.roll_if_full().unwrap() {
        let size = match main {
            40 => 700 * 1024,
            _ => 1000 + main as usize % 7 * 800,
        };
        fixture.put(main, 1, &format!("k{main}"), &vec![b'v'; size]);
        main += 1;
    }
    assert!(main > 300);
    fixture.put(main, 1, "in the next", b"v");
    fixture.keep();
    assert!(first.footer().is_some());
    let loaded = load_sized(&fixture.disk, LARGE).unwrap();
    let mut found = Vec::new();
    let mut add = |key: &[u8], history: &History| {
        history.for_each(|version| found.push((Bytes::copy_from_slice(key), version)));
        ControlFlow::Continue(())
    };
    loaded.versions.step(b"", &KeyRange::all(), usize::MAX, &mut add);
    found.sort_by_key(|(_, version)| version.main);
    assert!(found == fixture.versions);
}

#[test]
fn a_damaged_record_is_never_answered() {
    let mut fixture = Fixture::new();
    let version = fixture.put(2, 1, "k", &[7; 300]);
    fixture.disk.flip(
        &fixture.storage.segments()[0].path,
        version.loc.offset as usize + 100,
    );
    let error = fixture
        .storage
        .read(&fixture.storage.segments(), version.loc)
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("0000000000000001.seg"), "{error}");
}

/// However it is met, the storage knows of it: the first that was met in a segment, for as long as the segment is in use.
#[test]
fn damage_is_known_until_its_segment_goes() {
    let meet: [fn(&Fixture, Loc) -> io::Error; 3] = [
        |fixture, loc| {
            let segments = fixture.storage.segments();
            fixture.storage.read(&segments, loc).unwrap_err()
        },
        |fixture, loc| {
            let segments = fixture.storage.segments();
            fixture.storage.read_many(&segments, &[loc]).unwrap_err()
        },
        |fixture, _| keeper::seal(&fixture.storage.segments()[0]).unwrap_err(),
    ];
    for meet in meet {
        let mut fixture = Fixture::new();
        let version = fixture.put(2, 1, "k", &[7; 300]);
        fixture.put(3, 1, "l", &[7; 300]);
        let segment = fixture.storage.segments()[0].clone();
        fixture
            .disk
            .flip(&segment.path, version.loc.offset as usize + 100);
        assert!(fixture.storage.damage().is_none());
        let error = meet(&fixture, version.loc);
        let known = fixture.storage.damage().unwrap();
        assert_eq!(known.to_string(), error.to_string());
        assert_eq!(known.to_string(), Damage::of(&error).unwrap().to_string());
        fixture.storage.remove(&[segment.number]);
        assert!(fixture.storage.damage().is_none());
    }
}

#[test]
fn a_file_that_ends_before_its_records_is_damaged() {
    let mut fixture = Fixture::new();
    let version = fixture.put(2, 1, "k", &[7; 300]);
    let segment = fixture.storage.segments()[0].clone();
    segment
        .file
        .truncate(u64::from(version.loc.offset) + 100)
        .unwrap();
    let error = fixture
        .storage
        .read(&fixture.storage.segments(), version.loc)
        .unwrap_err();
    assert!(Damage::of(&error).is_some(), "{error}");
    assert!(fixture.storage.damage().is_some());
}

#[test]
fn a_durable_frame_that_does_not_check_refuses_to_start() {
    let mut fixture = Fixture::new();
    let version = fixture.put(2, 1, "k", &[7; 300]);
    fixture.put(3, 1, "l", &[7; 300]);
    fixture.keep();
    fixture.disk.flip(
        &fixture.storage.segments()[0].path,
        version.loc.offset as usize + 100,
    );
    let error = load(&fixture.disk)
        .err()
        .expect("damage must be refused")
        .to_string();
    assert!(
        error.contains("0000000000000001.seg") && error.contains("offset"),
        "{error}"
    );
}

#[test]
fn a_frame_beyond_the_durable_point_is_cut_off() {
    let mut fixture = Fixture::new();
    fixture.put(2, 1, "k", &[7; 300]);
    fixture.keep();
    let version = fixture.put(3, 1, "l", &[7; 300]);
    fixture.disk.flip(
        &fixture.storage.segments()[0].path,
        version.loc.offset as usize + 100,
    );
    let loaded = load(&fixture.disk).unwrap();
    assert_eq!((loaded.frame.index, loaded.versions.len()), (2, 1));
}

#[test]
fn a_store_of_another_cluster_is_refused() {
    let mut fixture = Fixture::new();
    fixture.put(2, 1, "k", b"v");
    fixture.keep();
    let foreign = load::load(Arc::new(fixture.disk.clone()), Path::new("/store"), 8, SEGMENT);
    assert!(matches!(
        foreign,
        Err(StorageError::Foreign {
            found: 9,
            expected: 8,
            ..
        })
    ));
}
