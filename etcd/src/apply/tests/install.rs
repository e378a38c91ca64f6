//! A store from another member, and the power failing at every step of its taking over.

use super::*;
use crate::bootstrap::finish_install;
use crate::storage::import::Import;
use crate::storage::record::Version;

const INDEX: u64 = 1000;
const REVISION: i64 = 5000;
const KEYS_SENT: i64 = 120;

fn version(main: i64) -> Version {
    Version {
        main,
        create: main,
        version: 1,
        lease: 0,
        sub: 0,
        loc: Loc::default(),
    }
}

fn arrive(machine: &Machine) -> io::Result<Arrived> {
    let mut import = Import::new(machine.store().storage.clone());
    for number in 1..=KEYS_SENT {
        let kv = etcd_api::mvccpb::KeyValue {
            key: format!("sent/{number}").into(),
            create_revision: number,
            mod_revision: number,
            version: 1,
            value: vec![7; 700].into(),
            lease: 0,
        };
        import.put(&kv.key, version(number), &kv.encode_to_vec())?;
    }
    let mut small = crate::storage::writer::Meta::new();
    meta::set_compacted(&mut small, 50);
    let mut lessor = Lessor::new(1);
    let state = meta::read_from(IDS.cluster, &small, &mut lessor).unwrap();
    let frame = FrameHeader {
        index: INDEX,
        term: 9,
        revision: REVISION,
    };
    Ok(Arrived {
        imported: import.finish(small, frame)?,
        state,
        lessor,
    })
}

fn take_over(machine: &mut Machine) -> Result<(), PowerLost> {
    let arrived = arrive(machine)?;
    catch_unwind(AssertUnwindSafe(|| machine.applier.install(arrived))).map_err(|_| PowerLost)?;
    let frame = machine.keeper.checkpoint()?;
    assert_eq!(frame.index, INDEX);
    let mut group = Group::default();
    group.snapshot(&etcd_api::walpb::Snapshot {
        index: INDEX,
        term: 9,
        conf_state: None,
    });
    machine.wal.append(&mut group)?;
    machine.wal.release(INDEX, 0)?;
    Ok(())
}

/// The index of the store after a start, which is either store and nothing in between.
fn index_after_start(disk: &FakeDisk) -> u64 {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut wal, mut replay) = Wal::open(shared.clone(), Path::new("/wal"), IDS, WAL_SEGMENT).unwrap();
    let loaded = load::load(shared, Path::new("/store"), IDS.cluster, STORE_SEGMENT).unwrap();
    let read = meta::read(&loaded, &mut Lessor::new(1)).unwrap();
    finish_install(&mut wal, &mut replay, &loaded, &read).unwrap();
    let index = loaded.frame.index;
    assert!(
        replay.snapshot.index <= index && index <= replay.last_index(),
        "the store is at {index}, the log from {} to {}",
        replay.snapshot.index,
        replay.last_index()
    );
    let store = Store::open(
        loaded.storage.clone(),
        loaded.versions,
        loaded.frame.revision,
        read.compacted,
    );
    let has = |key: &str| store.get(key.as_bytes(), i64::MAX).is_some();
    let sent = (1..=KEYS_SENT)
        .filter(|number| has(&format!("sent/{number}")))
        .count() as i64;
    match index == INDEX {
        true => {
            assert_eq!((sent, has("a")), (KEYS_SENT, false));
            assert_eq!((store.current(), store.compacted()), (REVISION, 50));
            assert_eq!((replay.snapshot.index, replay.snapshot.term), (INDEX, 9));
            assert!(replay.entries.is_empty(), "entries of the old log");
        }
        false => assert_eq!((sent, has("a")), (0, true)),
    }
    index
}

fn put_some(machine: &mut Machine) {
    for number in 0..5 {
        let put = PutRequest {
            key: "a".into(),
            value: vec![number; 400].into(),
            ..Default::default()
        };
        let request = InternalRaftRequest {
            put: Some(put),
            ..Default::default()
        };
        machine.propose(request).unwrap();
    }
}

/// `then` makes of a disk that has burnt what the next start finds.
fn either_store_is_there(then: impl Fn(&FakeDisk, u64)) {
    let mut seen = std::collections::BTreeSet::new();
    for fuse in 0.. {
        let disk = FakeDisk::new();
        let mut machine = Machine::open(&disk);
        machine.elect().unwrap();
        put_some(&mut machine);
        machine.keep().unwrap();
        disk.burn_after(fuse);
        let done = take_over(&mut machine).is_ok();
        drop(machine);
        then(&disk, fuse);
        seen.insert(index_after_start(&disk));
        if done {
            break;
        }
    }
    assert!(seen.contains(&INDEX) && seen.len() == 2, "{seen:?}");
}

#[test]
fn either_store_is_there_whenever_the_power_fails() {
    either_store_is_there(FakeDisk::crash);
}

/// The second start must not have relied on a MANIFEST whose name the first had not made durable.
#[test]
fn either_store_is_there_when_the_process_is_killed_and_the_power_fails_after_a_start() {
    either_store_is_there(|disk, seed| {
        disk.revive();
        index_after_start(disk);
        disk.crash(seed);
    });
}

/// Its segments bear lower numbers than those that were synced last.
#[test]
fn a_store_that_waited_while_the_old_one_went_on_is_durable() {
    for seed in 0..20 {
        let disk = FakeDisk::new();
        let mut machine = Machine::open(&disk);
        machine.elect().unwrap();
        let arrived = arrive(&machine).unwrap();
        let segment = |machine: &Machine| machine.applier.writer.written().lock().segment.number;
        let first = segment(&machine);
        while segment(&machine) < first + 3 {
            put_some(&mut machine);
        }
        machine.keep().unwrap();
        machine.applier.install(arrived);
        machine.keeper.checkpoint().unwrap();
        drop(machine);
        disk.crash(seed);
        assert_eq!(index_after_start(&disk), INDEX);
    }
}

#[test]
fn a_store_that_nobody_wanted_leaves_nothing() {
    let disk = FakeDisk::new();
    let machine = Machine::open(&disk);
    let before = disk.list(Path::new("/store")).unwrap();
    drop(arrive(&machine).unwrap());
    assert_eq!(disk.list(Path::new("/store")).unwrap(), before);
}

#[test]
fn reading_and_writing_go_on_in_the_store_that_arrived() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    take_over(&mut machine).unwrap();
    assert_eq!(machine.store().current(), REVISION);
    assert!(machine.read("sent/7", 0).unwrap().is_some());
    assert!(matches!(machine.read("sent/7", 49), Err(mvcc::Error::Compacted)));
    let put = PutRequest {
        key: "sent/7".into(),
        value: "new".into(),
        ..Default::default()
    };
    let entry = Entry {
        index: INDEX + 1,
        term: 9,
        data: InternalRaftRequest {
            put: Some(put),
            ..Default::default()
        }
        .encode_to_vec()
        .into(),
        ..Entry::default()
    };
    machine.applier.apply(vec![entry]);
    assert_eq!(machine.store().current(), REVISION + 1);
    assert_eq!(machine.read("sent/7", 0).unwrap(), Some("new".into()));
    machine.keeper.checkpoint().unwrap();
    machine.keeper.reclaim().unwrap();
    assert_eq!(
        machine.read("sent/8", 0).unwrap().map(|value| value.len()),
        Some(700)
    );
}
