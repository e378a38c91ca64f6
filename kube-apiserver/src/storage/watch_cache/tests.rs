use std::collections::BTreeMap;

use apimachinery::protobuf;
use apimachinery::schema::{Gvk, registry};
use apimachinery::selector::LabelSelector;
use apimachinery::value::Value;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::object::Encoding;
use super::*;

fn shape() -> Arc<Shape> {
    let gvk = Gvk::new("", "v1", "ConfigMap");
    Arc::new(Shape::new(
        gvk,
        registry().kind(gvk).unwrap(),
        Encoding::Protobuf,
        Vec::new(),
    ))
}

fn stored(shape: &Arc<Shape>, namespace: &str, name: &str, label: &str, revision: i64) -> Arc<CachedObject> {
    let mut value = Value::from([("kind", "ConfigMap".into()), ("apiVersion", "v1".into())]);
    value.set_at("metadata.name", name.to_owned());
    value.set_at("metadata.namespace", namespace.to_owned());
    value.set_at("metadata.labels.color", label.to_owned());
    let (mut raw, mut out) = (Vec::new(), Vec::new());
    protobuf::encode(&value, shape.ty, &mut raw).unwrap();
    protobuf::wrap(shape.gvk(), &raw, &mut out);
    Arc::new(CachedObject::from_stored(shape, &out, revision).unwrap())
}

/// What is there by key: (revision, label).
type Model = BTreeMap<String, (i64, String)>;

struct World {
    cache: Arc<WatchCache>,
    model: Model,
    revision: i64,
    rng: StdRng,
}

impl World {
    fn new(seed: u64) -> World {
        let cache = Arc::new(WatchCache::new(shape()));
        cache.replace(Vec::new(), 1);
        World {
            cache,
            model: Model::new(),
            revision: 1,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    fn step(&mut self) {
        self.revision += self.rng.random_range(1..3);
        let namespace = ["a", "a-b", "b"][self.rng.random_range(0..3)];
        let name = ["x", "y", "z"][self.rng.random_range(0..3)];
        let key = object_key(namespace, name);
        if self.model.contains_key(&key) && self.rng.random_bool(0.4) {
            self.model.remove(&key);
            self.cache.apply(std::iter::once(Change::Delete {
                key,
                revision: self.revision,
            }));
            return;
        }
        let label = ["red", "blue"][self.rng.random_range(0..2)];
        self.model.insert(key, (self.revision, label.to_owned()));
        let object = stored(&self.cache.shape, namespace, name, label, self.revision);
        self.cache.apply(std::iter::once(Change::Put(object)));
    }
}

fn contents(snapshot: &Snapshot) -> Model {
    let entry = |object: &Arc<CachedObject>| {
        (
            object_key(&object.namespace, &object.name),
            (object.resource_version, object.label("color").unwrap().to_owned()),
        )
    };
    snapshot.iter().map(entry).collect()
}

/// Applies what a watcher was told, checking that it makes sense from where the watcher stood.
fn follow(known: &mut Model, watch: &mut Watch) {
    let mut last = 0;
    while let Some((seen, event)) = watch.try_next() {
        assert!(event.revision > last, "events are in order");
        last = event.revision;
        let key = object_key(&event.object.namespace, &event.object.name);
        let label = event.object.label("color").unwrap().to_owned();
        match seen.0 {
            EventKind::Added => assert!(known.insert(key, (event.revision, label)).is_none(), "added once"),
            EventKind::Modified => assert!(
                known.insert(key, (event.revision, label)).is_some(),
                "known before"
            ),
            EventKind::Deleted => assert!(known.remove(&key).is_some(), "known before"),
        }
    }
}

#[test]
fn a_watcher_from_any_moment_ends_where_the_cache_is() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        let mut histories: Vec<(Model, Watch)> = Vec::new();
        for _ in 0..120 {
            if world.rng.random_bool(0.1) {
                let (snapshot, watch) = world.cache.watch_with_state(Interest::default());
                histories.push((contents(&snapshot), watch));
                let resumed = world
                    .cache
                    .watch_from(Interest::default(), snapshot.revision)
                    .unwrap();
                histories.push((contents(&snapshot), resumed));
            }
            world.step();
            assert_eq!(contents(&world.cache.snapshot()), world.model, "seed {seed}");
        }
        for (mut known, mut watch) in histories {
            follow(&mut known, &mut watch);
            assert_eq!(known, world.model, "seed {seed}");
        }
    }
}

#[test]
fn a_selecting_watcher_knows_exactly_what_it_selects() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        let interest = || Interest {
            namespace: Some("a".to_owned()),
            labels: LabelSelector::parse("color=red").unwrap(),
            ..Default::default()
        };
        let (_, mut watch) = world.cache.watch_with_state(interest());
        let start = world.cache.snapshot().revision;
        for _ in 0..100 {
            world.step();
        }
        let wanted: Model = world
            .model
            .iter()
            .filter(|(key, (_, label))| key.starts_with("a/") && label == "red")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let mut known = Model::new();
        follow(&mut known, &mut watch);
        assert_eq!(known, wanted, "seed {seed}");
        let mut known = Model::new();
        follow(
            &mut known,
            &mut world.cache.watch_from(interest(), start).unwrap(),
        );
        assert_eq!(known, wanted, "resumed, seed {seed}");
    }
}

#[test]
fn a_snapshot_never_changes_and_namespaces_do_not_bleed() {
    let mut world = World::new(7);
    for _ in 0..50 {
        world.step();
    }
    let (snapshot, before) = (world.cache.snapshot(), world.model.clone());
    for _ in 0..50 {
        world.step();
    }
    assert_eq!(contents(&snapshot), before);
    for namespace in ["a", "a-b", "b"] {
        let listed = snapshot.namespace(namespace).count();
        assert_eq!(
            listed,
            before
                .keys()
                .filter(|key| key.split('/').next() == Some(namespace))
                .count(),
            "{namespace}"
        );
    }
}

#[test]
fn observers_are_told_everything_once_even_across_a_relist() {
    let cache = Arc::new(WatchCache::new(shape()));
    cache.replace(
        vec![
            stored(&cache.shape, "a", "x", "red", 3),
            stored(&cache.shape, "a", "y", "red", 4),
        ],
        5,
    );
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    cache.observe(Box::new(move |event| {
        log.lock().push((event.kind, event.object.name.to_string()))
    }));
    cache.replace(
        vec![
            stored(&cache.shape, "a", "y", "blue", 8),
            stored(&cache.shape, "a", "z", "red", 9),
        ],
        10,
    );
    let name = str::to_owned;
    use EventKind::{Added, Deleted, Modified};
    assert_eq!(
        *told.lock(),
        [
            (Added, name("x")),
            (Added, name("y")),
            (Deleted, name("x")),
            (Modified, name("y")),
            (Added, name("z"))
        ]
    );
}

#[test]
fn history_before_the_first_list_is_gone() {
    let cache = Arc::new(WatchCache::new(shape()));
    cache.replace(Vec::new(), 50);
    assert_eq!(
        cache.watch_from(Interest::default(), 49).err(),
        Some(TooOld {
            wanted: 49,
            floor: 50
        })
    );
    assert!(cache.watch_from(Interest::default(), 50).is_ok());
}

#[tokio::test]
async fn a_slow_watcher_is_closed_with_its_reason_and_holds_up_nobody() {
    let mut world = World::new(1);
    let (_, mut slow) = world.cache.watch_with_state(Interest::default());
    let (_, mut quick) = world.cache.watch_with_state(Interest::default());
    for _ in 0..5000 {
        world.step();
        while quick.try_next().is_some() {}
    }
    assert_eq!(world.cache.watchers(), 1);
    while slow.try_next().is_some() {}
    assert_eq!(slow.next().await.err(), Some(Closed::TooSlow));
    drop(quick);
    assert_eq!(world.cache.watchers(), 0);
}

#[tokio::test]
async fn a_relist_closes_watchers() {
    let cache = Arc::new(WatchCache::new(shape()));
    cache.replace(Vec::new(), 5);
    let (_, mut watch) = cache.watch_with_state(Interest::default());
    cache.replace(Vec::new(), 9);
    assert_eq!(watch.next().await.err(), Some(Closed::Relisted));
}
