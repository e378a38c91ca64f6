use super::block::Block;
use super::*;
use crate::mvcc::index::at;

fn version(main: i64, sub: u32) -> Version {
    let number = (main + i64::from(sub)) as u32;
    Version {
        main,
        create: if main % 7 == 0 { main } else { main - main % 100 },
        version: if main % 5 == 0 { 0 } else { main % 300 },
        lease: if main % 3 == 0 { i64::MIN + main } else { 0 },
        sub,
        loc: Loc {
            segment: number / 50,
            // Some lie where no record would.
            offset: number.wrapping_mul(0x9e37_79b1) & !7 | (number % 11 / 10),
            length: 48 + number % 2000,
        },
    }
}

/// Enough for several blocks, with transactions that write the key more than once.
fn versions() -> Vec<Version> {
    let main = |number: i64| 10 + number * (number + 2);
    (0..300)
        .flat_map(|number| (0..=u32::from(number % 9 == 0)).map(move |sub| version(main(number), sub)))
        .collect()
}

fn stretches(history: &History) -> usize {
    let rest = history.rest.as_ref();
    rest.map_or(0, |rest| rest.stretches().since(0).count())
}

fn unpacked(history: &History, from: i64) -> Vec<Version> {
    let mut out = Vec::new();
    history.unpack(from, &mut out);
    out
}

#[test]
fn packed_versions_are_what_was_put_in() {
    let all = versions();
    let history = History::pack(&all).unwrap();
    assert!(stretches(&history) > 3, "several blocks");
    assert_eq!(unpacked(&history, 0), all);
    assert_eq!(history.newest(), *all.last().unwrap());
    for one in &all {
        assert_eq!(history.find((one.main, one.sub)), Some(*one));
    }
    assert_eq!(history.find((11, 0)), None);
    assert_eq!(history.find((10, 7)), None);
    for revision in 0..all[320].main {
        assert_eq!(history.at(revision), at(&all, revision).copied(), "{revision}");
    }
}

#[test]
fn what_was_there_before_a_revision_is_unpacked_with_what_came_after() {
    let all = versions();
    let history = History::pack(&all).unwrap();
    let last = all.last().unwrap().main;
    for from in 0..last + 10 {
        let out = unpacked(&history, from);
        assert!(all.ends_with(&out));
        let before = all.iter().rfind(|version| version.main < from);
        assert!(before.is_none_or(|before| out.contains(before)), "{from}");
    }
    assert!(unpacked(&history, last).len() < 10, "one block and the newest");
}

#[test]
fn versions_may_come_in_any_order() {
    let all = versions();
    let sorted = History::pack(&all).unwrap();
    // Three runs, each in order, as segments that were copied have them.
    let runs = [200..310, 90..200, 0..90, 310..all.len()];
    let mut history: Option<History> = None;
    for one in runs.into_iter().flat_map(|run| &all[run]) {
        match &mut history {
            Some(history) => history.enter(*one),
            none => *none = Some(History::new(*one)),
        }
    }
    let history = history.unwrap();
    assert_eq!(unpacked(&history, 0), all);
    assert!(stretches(&history) <= stretches(&sorted) + 3, "full blocks");
    let mut scattered = History::new(all[7]);
    for number in 1..all.len() {
        scattered.enter(all[(7 + number * 131) % all.len()]);
    }
    assert_eq!(unpacked(&scattered, 0), all);
}

#[test]
fn what_does_not_fit_into_the_short_form_is_kept() {
    let plain = Version {
        lease: 0,
        version: 3,
        create: 900,
        ..version(1000, 2)
    };
    let large = i64::from(u32::MAX);
    for newest in [
        plain,
        Version { lease: -1, ..plain },
        Version {
            version: large + 1,
            ..plain
        },
        Version {
            version: large,
            ..plain
        },
        Version {
            create: 1000 - large,
            ..plain
        },
        Version {
            create: 1001 - large,
            ..plain
        },
        Version {
            create: 1001,
            ..plain
        },
        Version {
            version: 0,
            create: 0,
            main: large * 2,
            ..plain
        },
        Version {
            main: i64::MAX,
            create: i64::MIN,
            ..plain
        },
    ] {
        assert_eq!(History::new(newest).newest(), newest);
        let mut history = History::new(Version {
            main: 1,
            create: 1,
            lease: 5,
            ..plain
        });
        history.push(newest);
        assert_eq!(history.newest(), newest, "after one with a lease");
    }
    assert_eq!((size_of::<History>(), size_of::<Rest>()), (40, 48));
}

#[test]
fn a_version_moves_only_from_where_it_is_said_to_be() {
    let mut all = versions();
    let mut history = History::pack(&all).unwrap();
    let to = |number: usize| Loc {
        segment: 77,
        offset: number as u32 * 8,
        length: 99,
    };
    for (number, one) in all.iter_mut().enumerate() {
        let elsewhere = Version {
            loc: to(5000),
            ..*one
        };
        assert!(!history.relocate(&elsewhere, to(number)));
        assert!(history.relocate(one, to(number)));
        one.loc = to(number);
    }
    assert_eq!(unpacked(&history, 0), all);
    assert!(!history.relocate(&version(11, 0), to(0)));
}

#[test]
fn compaction_drops_the_same_from_packed_versions() {
    let all = versions();
    for revision in (0..all[299].main + 2)
        .step_by(97)
        .chain([all[150].main, all[320].main])
    {
        let mut history = History::pack(&all).unwrap();
        let mut dropped = Vec::new();
        assert!(history.compact(revision, |version| dropped.push(*version)));
        let gone = dropped_by(&all, revision);
        assert_eq!(
            (&dropped[..], unpacked(&history, 0)),
            (&all[..gone], all[gone..].to_vec())
        );
    }
    let tombstone = Version { version: 0, ..all[0] };
    let mut dropped = 0;
    assert!(!History::new(tombstone).compact(tombstone.main + 1, |_| dropped += 1));
    assert_eq!(dropped, 1);
}

#[test]
fn an_older_version_takes_less_than_half_of_a_new_one() {
    let plain = |main| Version {
        lease: 0,
        create: main - 30_000,
        loc: Loc {
            offset: main as u32 * 8,
            ..version(main, 0).loc
        },
        ..version(main, 0)
    };
    let mut history = History::new(plain(1_000_000));
    (1..1000).for_each(|number| history.push(plain(1_000_000 + number * 100)));
    let bytes = stretches(&history) * (size_of::<Block<63>>() + size_of::<Box<Block<63>>>());
    assert!(bytes / 999 * 2 < size_of::<Version>(), "{} bytes", bytes / 999);
}

#[test]
fn a_few_older_versions_are_kept_without_blocks() {
    let all = versions();
    for count in 1..6 {
        for start in 0..all.len() - count {
            let few = &all[start..start + count];
            let mut one_by_one = History::new(few[0]);
            few[1..].iter().for_each(|version| one_by_one.push(*version));
            let mut backwards = History::new(few[count - 1]);
            few[..count - 1]
                .iter()
                .rev()
                .for_each(|version| backwards.enter(*version));
            for history in [one_by_one, backwards, History::pack(few).unwrap()] {
                assert_eq!(unpacked(&history, 0), few);
                for revision in few[0].main - 1..few[0].main + 50 {
                    assert_eq!(history.at(revision), at(few, revision).copied(), "{revision}");
                }
            }
        }
    }
    let plain = |main| Version {
        lease: 0,
        ..version(main, 0)
    };
    let mut history = History::new(plain(100));
    for main in [101, 102] {
        history.push(plain(main));
        let rest = history.rest.as_deref();
        assert!(matches!(rest, Some(Rest::Few(_))), "{rest:?}");
    }
}

#[test]
fn the_largest_version_fits_into_a_block() {
    let large = |main| Version {
        main,
        create: i64::MIN,
        version: i64::MAX,
        lease: i64::MAX,
        sub: u32::MAX,
        loc: Loc {
            segment: u32::MAX,
            offset: u32::MAX,
            length: u32::MAX,
        },
    };
    let all = [large(i64::MAX - 2), large(i64::MAX - 1), large(i64::MAX)];
    assert_eq!(unpacked(&History::pack(&all).unwrap(), 0), all);
}
