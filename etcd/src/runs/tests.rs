use super::*;

type Big = [u64; 5];

/// Keys in order, in the opposite order and in none, as a store of objects has them.
#[test]
fn a_key_costs_little_more_than_its_value() {
    const KEYS: usize = 20_000;
    for (order, most) in [(1, 53), (KEYS - 1, 53), (12_347, 72)] {
        let mut runs = Runs::default();
        for number in 0..KEYS {
            let key = format!("/registry/pods/default/{:08}", number * order % KEYS);
            runs.enter(key.as_bytes(), |_: &mut Big| panic!("{key}"), Big::default);
        }
        assert_eq!(runs.len(), KEYS);
        let inside = runs.runs.values().map(Run::allocated).sum::<usize>();
        let places = runs.runs.len() * (size_of::<Run<Big>>() + size_of::<Box<[u8]>>());
        let each = (inside + places) / KEYS;
        assert!(each <= most, "{each} bytes, in steps of {order}");
    }
}

#[test]
fn few_keys_that_are_left_keep_few_runs() {
    let fill = || {
        let mut runs = Runs::default();
        for number in 0..10_000_usize {
            runs.enter(&number.to_be_bytes(), |_| {}, || number);
        }
        assert!(runs.runs.len() > 90);
        runs
    };
    let mut at_once = fill();
    assert_eq!(at_once.retain(b"", usize::MAX, |number| *number % 100 == 0), None);
    let mut one_by_one = fill();
    let scattered = (0..10_000_usize).map(|number| number * 7 % 10_000);
    for number in scattered.filter(|number| number % 100 != 0) {
        assert_eq!(one_by_one.remove(&number.to_be_bytes()), Some(number));
    }
    for (mut runs, how) in [(at_once, "at once"), (one_by_one, "one by one")] {
        assert_eq!(runs.len(), 100, "{how}");
        assert!(
            runs.values_mut()
                .map(|number| *number)
                .eq((0..10_000).step_by(100)),
            "{how}"
        );
        assert!(runs.runs.len() < 10, "{how}: {} runs", runs.runs.len());
        assert_eq!(runs.remove(&5_usize.to_be_bytes()), None);
    }
}
