use std::collections::BTreeMap;

use super::*;

fn history(mains: &[(i64, bool)]) -> Vec<Version> {
    let version = |(main, put): &(i64, bool)| Version {
        main: *main,
        create: 1,
        version: i64::from(*put),
        lease: 0,
        sub: 0,
        loc: Loc::default(),
    };
    mains.iter().map(version).collect()
}

#[test]
fn a_read_sees_the_newest_version_at_its_revision() {
    let versions = history(&[(2, true), (4, true), (6, false), (8, true)]);
    let main = |revision| at(&versions, revision).map(|version| version.main);
    assert_eq!(
        [main(1), main(2), main(5), main(6), main(7), main(9)],
        [None, Some(2), Some(4), None, None, Some(8)]
    );
}

#[test]
fn compaction_keeps_what_reads_and_watches_at_its_revision_need() {
    let versions = history(&[(2, true), (4, true), (6, false), (8, true)]);
    let dropped = |revision| dropped_by(&versions, revision);
    assert_eq!(
        [dropped(1), dropped(2), dropped(3), dropped(4), dropped(5)],
        [0, 0, 0, 1, 1]
    );
    assert_eq!(
        dropped(6),
        2,
        "the tombstone at the compaction's own revision stays"
    );
    assert_eq!([dropped(7), dropped(8), dropped(9)], [3, 3, 3]);
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) as usize % sides
    }
}

/// Few enough to meet again, alike and unlike, short and long.
fn any_key(dice: &mut Dice) -> Vec<u8> {
    let number = dice.roll(1500);
    match dice.roll(40) {
        0 => vec![b'r'; number % 20],
        1 => vec![0xff; number % 3],
        2 => [&b"/registry/"[..], &vec![b'l'; 3000], &number.to_be_bytes()[7..]].concat(),
        3..15 => format!("/registry/pods/default/{number:04}").into_bytes(),
        15..20 => format!("/registry/pods/default/{number}/status").into_bytes(),
        20..30 => format!("/registry/events/{:x}", number.wrapping_mul(0x9e37)).into_bytes(),
        _ => (number as u32).to_be_bytes()[2..].to_vec(),
    }
}

fn version(main: i64, puts: i64) -> Version {
    Version {
        main,
        create: main,
        version: puts,
        lease: main % 5 / 4,
        sub: 0,
        loc: Loc {
            segment: 1,
            offset: main as u32 * 8,
            length: 100,
        },
    }
}

type Model = BTreeMap<Vec<u8>, Vec<Version>>;

fn all_of(index: &Index, range: &KeyRange, step: usize) -> Vec<(Vec<u8>, Vec<Version>)> {
    let (mut found, mut cursor) = (Vec::new(), range.first().to_vec());
    loop {
        let mut add = |key: &[u8], history: &History| {
            let mut versions = Vec::new();
            history.unpack(0, &mut versions);
            found.push((key.to_vec(), versions));
            ControlFlow::Continue(())
        };
        match index.step(&cursor, range, step, &mut add) {
            Some(next) => cursor = next,
            None => return found,
        }
    }
}

fn assert_same(index: &Index, model: &Model, dice: &mut Dice) {
    assert_eq!(index.len(), model.len());
    let every: Vec<_> = model.clone().into_iter().collect();
    assert_eq!(all_of(index, &KeyRange::all(), 7), every);
    for _ in 0..200 {
        let (first, end) = (any_key(dice), any_key(dice));
        assert_eq!(
            index.newest(&first).as_ref(),
            model.get(&first).and_then(|of| of.last())
        );
        let range = KeyRange::Range(first.clone().into(), end.clone().into());
        let between = every.iter().filter(|(key, _)| *key >= first && *key < end);
        assert!(all_of(index, &range, 3).iter().eq(between), "{range:?}");
    }
}

#[test]
fn an_index_is_a_sorted_map_whatever_comes_and_goes() {
    let (mut dice, mut index, mut model, mut main) = (Dice(1), Index::default(), Model::new(), 1);
    for round in 0..6 {
        for _ in 0..4000 {
            let (key, puts) = (any_key(&mut dice), dice.roll(4) as i64);
            main += 1;
            index.insert(&key, version(main, puts));
            model.entry(key).or_default().push(version(main, puts));
        }
        assert_same(&index, &model, &mut dice);
        let revision = main - [0, 100, 3000][round % 3];
        let (mut dropped, mut expected) = (Vec::new(), Vec::new());
        let mut fence = Some(Box::default());
        while let Some(from) = fence {
            fence = index.compact_step(&from, 50, revision, |version| dropped.push(*version));
        }
        model.retain(|_, versions| {
            expected.extend(versions.drain(..dropped_by(versions, revision)));
            !versions.is_empty()
        });
        assert_eq!(dropped, expected);
        assert_same(&index, &model, &mut dice);
    }
}

#[test]
fn what_segments_hold_in_any_order_is_settled_at_once() {
    let (mut dice, mut all) = (Dice(2), Vec::new());
    for main in 2..6000 {
        all.push((any_key(&mut dice), version(main, dice.roll(3) as i64)));
    }
    let mut shuffled = all.clone();
    (0..shuffled.len()).for_each(|place| shuffled.swap(place, dice.roll(all.len())));
    let mut index: Index = shuffled.into_iter().collect();
    let mut model = Model::new();
    for (key, version) in all {
        model.entry(key).or_default().push(version);
    }
    assert_same(&index, &model, &mut dice);
    let storage = crate::storage::tests::Fixture::new().storage;
    assert_eq!(index.settle(4000, &storage), 5999);
    model.retain(|_, versions| {
        versions.drain(..dropped_by(versions, 4000));
        !versions.is_empty()
    });
    assert_same(&index, &model, &mut dice);
    let live: u64 = model
        .values()
        .flatten()
        .map(|version| u64::from(version.loc.length))
        .sum();
    assert_eq!(storage.live_bytes(), live);
}
