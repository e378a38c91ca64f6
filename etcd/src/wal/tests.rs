use super::*;
use crate::disk::fake::FakeDisk;
use crate::raft::older::Fetch;
use raft::eraftpb::{Entry, HardState};

const SEGMENT: u64 = 64 * 1024;
const IDS: Ids = Ids {
    cluster: 7,
    member: 9,
};

fn dir() -> &'static Path {
    Path::new("/wal")
}

fn entry(index: u64, bytes: usize) -> Entry {
    Entry {
        index,
        term: 1,
        data: vec![index as u8 | 1; bytes].into(),
        ..Default::default()
    }
}

fn append(wal: &mut Wal, entries: &[Entry]) {
    let mut group = Group::default();
    entries.iter().for_each(|entry| group.entry(entry));
    wal.append(&mut group).unwrap();
}

fn reopen(disk: &FakeDisk) -> Result<(Wal, Replay), WalError> {
    Wal::open(Arc::new(disk.clone()), dir(), IDS, SEGMENT)
}

fn indexes(replay: &Replay) -> Vec<u64> {
    replay.entries.iter().map(|entry| entry.index).collect()
}

#[test]
fn what_was_appended_is_read_back() {
    let disk = FakeDisk::new();
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
    append(&mut wal, &[entry(1, 10), entry(2, 0)]);
    hard_state(&mut wal, 2);
    let (mut wal, replay) = reopen(&disk).unwrap();
    assert_eq!(indexes(&replay), [1, 2]);
    assert_eq!(replay.hard_state.commit, 2);
    append(&mut wal, &[entry(3, 5)]);
    assert_eq!(indexes(&reopen(&disk).unwrap().1), [1, 2, 3]);
}

/// Killed at any step, read, and then the power goes: raft has counted on what it read.
#[test]
fn what_a_killed_process_has_left_is_durable_once_it_was_read() {
    for fuse in 0..40 {
        let disk = FakeDisk::new();
        let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
        disk.burn_after(fuse);
        (1..40).any(|index| {
            let mut group = Group::default();
            group.entry(&entry(index, 40 * 1024));
            wal.append(&mut group).is_err()
        });
        disk.revive();
        let read = indexes(&reopen(&disk).unwrap().1);
        disk.crash(fuse);
        assert_eq!(
            indexes(&reopen(&disk).unwrap().1),
            read,
            "killed after {fuse} operations"
        );
    }
}

#[test]
fn a_rewritten_index_supersedes_what_followed_it() {
    let disk = FakeDisk::new();
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
    append(&mut wal, &[entry(1, 1), entry(2, 1), entry(3, 1)]);
    append(&mut wal, &[entry(2, 1)]);
    assert_eq!(indexes(&reopen(&disk).unwrap().1), [1, 2]);
}

#[test]
fn segments_roll_and_are_released() {
    let disk = FakeDisk::new();
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
    for index in 1..=40 {
        append(&mut wal, &[entry(index, 4 * 1024)]);
        if let Some(job) = wal.spare_job() {
            wal.spare_done(job.run()).unwrap();
        }
    }
    assert_eq!(wal.segments(), 3);
    let mut group = Group::default();
    group.snapshot(&walpb(35));
    wal.append(&mut group).unwrap();
    assert_eq!(
        wal.release(35, 0).unwrap(),
        None,
        "the hard state is nowhere else"
    );
    hard_state(&mut wal, 35);
    wal.release(35, 0).unwrap();
    assert_eq!(wal.segments(), 1);
    let (_, replay) = reopen(&disk).unwrap();
    assert_eq!(indexes(&replay), [36, 37, 38, 39, 40]);
}

fn hard_state(wal: &mut Wal, commit: u64) {
    let mut group = Group::default();
    group.hard_state(&HardState {
        term: 3,
        vote: 9,
        commit,
    });
    wal.append(&mut group).unwrap();
}

/// On a full disk segments are released long after the record that covers them was written.
#[test]
fn the_newest_hard_state_and_snapshot_record_stay() {
    let disk = FakeDisk::new();
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
    let large = SEGMENT as usize / 2 + 1;
    append(&mut wal, &[entry(1, large)]);
    append(&mut wal, &[entry(2, large)]);
    hard_state(&mut wal, 2);
    append(&mut wal, &[entry(3, large)]);
    let mut group = Group::default();
    group.snapshot(&walpb(3));
    wal.append(&mut group).unwrap();
    append(&mut wal, &[entry(4, large)]);
    append(&mut wal, &[entry(5, large)]);
    assert_eq!(wal.release(3, 0).unwrap(), Some(1));
    let (_, replay) = reopen(&disk).unwrap();
    assert_eq!((replay.hard_state.term, replay.hard_state.vote), (3, 9));
    assert_eq!((replay.snapshot.index, indexes(&replay)), (3, vec![4, 5]));
    hard_state(&mut wal, 5);
    assert_eq!(wal.release(3, 0).unwrap(), Some(2));
    assert_eq!(reopen(&disk).unwrap().1.snapshot.index, 3);
}

/// What is read of `low..high`, and how often it had to be asked for.
fn past(past: &past::Past, low: u64, high: u64, terms: &[(u64, u64)]) -> (Vec<Entry>, usize) {
    let (mut found, mut times) = (Vec::new(), 0);
    while low + (found.len() as u64) < high {
        let fetch = Fetch {
            low: low + found.len() as u64,
            high,
            terms: terms.iter().copied().collect(),
        };
        found.extend(past.read(&fetch, 40 * 1024).unwrap());
        times += 1;
    }
    (found, times)
}

#[test]
fn older_entries_are_read_back_without_those_that_were_superseded() {
    let disk = FakeDisk::new();
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
    let of_term = |term: u64, index: u64| Entry {
        term,
        ..entry(index, 4096)
    };
    for first in (1..=40).step_by(4) {
        append(&mut wal, &[0, 1, 2, 3].map(|more| of_term(1, first + more)));
    }
    append(&mut wal, &[of_term(2, 31), of_term(2, 32)]);
    (33..=60).for_each(|index| append(&mut wal, &[of_term(2, index)]));
    assert!(wal.segments() > 3);
    let terms = [(0, 1), (31, 2)];
    let (entries, times) = past(&wal.past(), 3, 50, &terms);
    let expected: Vec<Entry> = (3..50)
        .map(|index| of_term(1 + u64::from(index > 30), index))
        .collect();
    assert_eq!(entries, expected);
    assert!((6..=8).contains(&times), "{times} pieces of at most nine");
    let reader = wal.past();
    let mut group = Group::default();
    group.snapshot(&walpb(60));
    wal.append(&mut group).unwrap();
    hard_state(&mut wal, 60);
    assert_eq!(wal.release(60, 9).unwrap(), None);
    let gone = wal.release(60, 1).unwrap().unwrap();
    assert_eq!(past(&reader, gone + 1, 60, &terms).0.len() as u64, 59 - gone);
    let fetch = Fetch {
        low: 3,
        high: 9,
        terms: terms.iter().copied().collect(),
    };
    assert!(reader.read(&fetch, 1024).is_err(), "it went with its segment");
}

fn walpb(index: u64) -> etcd_api::walpb::Snapshot {
    etcd_api::walpb::Snapshot {
        index,
        term: 1,
        conf_state: None,
    }
}

#[test]
fn a_group_larger_than_a_segment_gets_its_own() {
    let disk = FakeDisk::new();
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
    append(&mut wal, &[entry(1, SEGMENT as usize + 5)]);
    append(&mut wal, &[entry(2, 5)]);
    assert_eq!(indexes(&reopen(&disk).unwrap().1), [1, 2]);
}

/// Every acknowledged entry is there after power was lost between any two operations, whatever sectors the disk kept.
#[test]
fn no_acknowledged_entry_is_lost_by_a_crash_at_any_step() {
    for fuse in 0..60 {
        for seed in 0..8 {
            let disk = FakeDisk::new();
            let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
            disk.burn_after(fuse);
            let acknowledged = append_until_failure(&mut wal);
            disk.crash(seed);
            let (_, replay) = reopen(&disk).unwrap();
            assert!(
                replay.last_index() >= acknowledged,
                "fuse {fuse} seed {seed}: {} < {acknowledged}",
                replay.last_index()
            );
            assert_eq!(indexes(&replay), (1..=replay.last_index()).collect::<Vec<_>>());
        }
    }
}

fn append_until_failure(wal: &mut Wal) -> u64 {
    let mut group = Group::default();
    for index in 1..=20 {
        group.clear();
        group.entry(&entry(index, 1500));
        if wal.append(&mut group).is_err() {
            return index - 1;
        }
    }
    20
}

#[test]
fn a_flipped_bit_refuses_and_names_file_and_offset() {
    for (offset, groups) in [
        (SEGMENT_HEADER_BYTES + 40, 3),
        (SEGMENT_HEADER_BYTES + 2, 3),
        (SEGMENT_HEADER_BYTES + 40, 1),
        (10, 1),
    ] {
        let disk = FakeDisk::new();
        let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
        for index in 1..=groups {
            append(&mut wal, &[entry(index, 2000)]);
        }
        disk.flip(&dir().join(format::name(1)), offset);
        let error = reopen(&disk)
            .err()
            .expect("a corrupt log must not open")
            .to_string();
        assert!(
            error.contains("0000000000000001.wal") && error.contains("offset"),
            "{error}"
        );
    }
}

#[test]
fn a_log_of_another_cluster_and_a_gap_are_refused() {
    let disk = FakeDisk::new();
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
    let foreign = Wal::open(
        Arc::new(disk.clone()),
        dir(),
        Ids {
            cluster: 8,
            member: 9,
        },
        SEGMENT,
    );
    assert!(matches!(foreign, Err(WalError::Foreign { .. })));
    append(&mut wal, &[entry(1, SEGMENT as usize - 200)]);
    append(&mut wal, &[entry(2, SEGMENT as usize - 200)]);
    append(&mut wal, &[entry(3, 10_000)]);
    disk.remove(&dir().join(format::name(2))).unwrap();
    assert!(matches!(reopen(&disk), Err(WalError::Missing { missing: 2, .. })));
}

#[test]
fn a_full_disk_refuses_the_group_and_takes_it_when_there_is_space() {
    let disk = FakeDisk::new();
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), IDS, SEGMENT).unwrap();
    disk.set_capacity(Some(SEGMENT + 1));
    append(&mut wal, &[entry(1, SEGMENT as usize - 5000)]);
    let mut group = Group::default();
    group.entry(&entry(2, 10_000));
    assert!(crate::disk::is_full(&wal.append(&mut group).unwrap_err()));
    disk.set_capacity(None);
    wal.append(&mut group).unwrap();
    assert_eq!(indexes(&reopen(&disk).unwrap().1), [1, 2]);
}
