//! What is written is read back, whatever its shape; what is damaged is named and never a panic.

use std::path::{Path, PathBuf};

use bbolt::{Database, Error, Fault, PAGE_BYTES, Plan, WriteError, Writer};

type Items = Vec<(Vec<u8>, Vec<u8>)>;

fn write(path: &Path, buckets: &[(&str, Items)]) -> u64 {
    let mut plan = Plan::default();
    for (name, items) in buckets {
        plan.bucket(name.as_bytes()).unwrap();
        for (key, value) in items {
            plan.item(key, value.len()).unwrap();
        }
    }
    let layout = plan.finish().unwrap();
    let mut writer = Writer::new(layout, std::fs::File::create(path).unwrap()).unwrap();
    for (name, items) in buckets {
        writer.bucket(name.as_bytes()).unwrap();
        for (key, value) in items {
            writer.item(key, value).unwrap();
        }
    }
    writer.finish().unwrap();
    layout.bytes()
}

fn read(database: &Database) -> Result<Vec<(String, Items)>, Error> {
    let mut out = Vec::new();
    for bucket in database.buckets()? {
        let mut items = Vec::new();
        let mut cursor = database.cursor(&bucket)?;
        while let Some(item) = cursor.next()? {
            items.push((item.key.to_vec(), item.value.to_vec()));
        }
        out.push((String::from_utf8_lossy(&bucket.name).into_owned(), items));
    }
    Ok(out)
}

fn numbered(count: u64, value: usize) -> Items {
    let item = |number: u64| (number.to_be_bytes().to_vec(), vec![number as u8; value]);
    (0..count).map(item).collect()
}

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("db")
}

#[test]
fn trees_of_every_shape_come_back() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut mixed = numbered(50, 10);
    mixed[20].1 = vec![7; 100_000];
    mixed[21].1 = Vec::new();
    mixed[49].1 = vec![9; PAGE_BYTES];
    for buckets in [
        vec![],
        vec![("empty", vec![])],
        vec![("one", numbered(1, 0))],
        vec![("inline", numbered(10, 50)), ("leaf", numbered(40, 50))],
        vec![("a", numbered(20_000, 100)), ("b", vec![]), ("c", mixed)],
        vec![("exact", vec![(vec![1], vec![0; PAGE_BYTES - 16 - 16 - 1])])],
        vec![("over", vec![(vec![1], vec![0; PAGE_BYTES - 16 - 16])])],
    ] {
        let bytes = write(&file(&dir), &buckets);
        assert_eq!(std::fs::metadata(file(&dir)).unwrap().len(), bytes);
        let database = Database::open(&file(&dir)).unwrap();
        database.check().unwrap();
        let expected: Vec<(String, Items)> = buckets
            .iter()
            .map(|(name, items)| ((*name).to_owned(), items.clone()))
            .collect();
        assert_eq!(read(&database).unwrap(), expected);
    }
}

#[test]
fn many_buckets_make_a_tree_of_buckets() {
    let dir = tempfile::TempDir::new().unwrap();
    let names: Vec<String> = (0..500).map(|number| format!("bucket{number:04}")).collect();
    let buckets: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), numbered(5, 20)))
        .collect();
    write(&file(&dir), &buckets);
    let database = Database::open(&file(&dir)).unwrap();
    database.check().unwrap();
    assert_eq!(database.buckets().unwrap().len(), 500);
    assert!(database.bucket(b"bucket0499").unwrap().is_some());
    assert!(database.bucket(b"nothing").unwrap().is_none());
}

#[test]
fn what_is_out_of_order_or_unplanned_is_refused() {
    let mut plan = Plan::default();
    assert!(matches!(plan.item(b"a", 1), Err(WriteError::NoBucket)));
    plan.bucket(b"b").unwrap();
    plan.item(b"b", 1).unwrap();
    assert!(matches!(plan.item(b"b", 1), Err(WriteError::Order)));
    assert!(matches!(plan.item(b"", 1), Err(WriteError::KeySize(0))));
    let layout = plan.finish().unwrap();
    let mut writer = Writer::new(layout, Vec::new()).unwrap();
    writer.bucket(b"b").unwrap();
    for number in 0..200u8 {
        writer.item(&[b'b', number], &[0; 100]).unwrap();
    }
    assert!(matches!(writer.finish(), Err(WriteError::NotAsPlanned { .. })));
}

/// A file of three levels, and its bytes.
fn sample(dir: &tempfile::TempDir) -> Vec<u8> {
    write(
        &file(dir),
        &[("key", numbered(2000, 400)), ("meta", numbered(3, 8))],
    );
    std::fs::read(file(dir)).unwrap()
}

fn fault(dir: &tempfile::TempDir, bytes: &[u8]) -> Error {
    std::fs::write(file(dir), bytes).unwrap();
    match Database::open(&file(dir)) {
        Err(error) => error,
        Ok(database) => match read(&database) {
            Err(error) => error,
            Ok(_) => database.check().expect_err("the damage was not noticed"),
        },
    }
}

#[test]
fn damage_is_named_with_its_page() {
    let dir = tempfile::TempDir::new().unwrap();
    let good = sample(&dir);
    let damage = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        match fault(&dir, &bytes) {
            Error::Page { page, fault, file } => {
                assert!(file.ends_with("db"));
                (page, fault)
            }
            other => panic!("{other}"),
        }
    };
    let page = |id: usize| id * PAGE_BYTES;
    // Page 3 is the first leaf of the bucket.
    assert_eq!(damage(page(3), &77u64.to_le_bytes()), (3, Fault::Id(77)));
    assert_eq!(damage(page(3) + 8, &[4]), (3, Fault::Kind(4)));
    assert_eq!(
        damage(page(3) + 12, &u32::MAX.to_le_bytes()),
        (3, Fault::Overflow(u32::MAX))
    );
    assert_eq!(damage(page(3) + 12, &[1]), (4, Fault::Twice));
    assert_eq!(damage(page(3) + 10, &[255, 255]), (3, Fault::Element(65534)));
    assert_eq!(damage(page(3) + 16 + 8, &[0]), (3, Fault::EmptyKey(0)));
    assert_eq!(
        damage(page(3) + 16 + 4, &u32::MAX.to_le_bytes()),
        (3, Fault::Element(0))
    );
    assert_eq!(
        damage(page(3) + 16 + 12, &u32::MAX.to_le_bytes()),
        (3, Fault::Element(0))
    );
    assert_eq!(damage(page(2) + 8, &[2]), (2, Fault::NotFreelist(2)));
    assert_eq!(damage(page(2) + 10, &[1]), (0, Fault::Freed));
    // The key of the first leaf's second element.
    let second = page(3) + 32 + good[page(3) + 36] as usize + 256 * good[page(3) + 37] as usize;
    assert_eq!(damage(second, &[0; 8]), (3, Fault::Order(1)));
    // The first branch page, and its first child.
    let branch = (3..).find(|id| good[page(*id) + 8] == 1).unwrap();
    assert_eq!(
        damage(page(branch) + 24, &u64::MAX.to_le_bytes()),
        (
            u64::MAX,
            Fault::OutOfRange {
                pages: good.len() as u64 / PAGE_BYTES as u64
            }
        )
    );
    assert_eq!(
        damage(page(branch) + 24, &(branch as u64).to_le_bytes()),
        (branch as u64, Fault::Twice),
        "a cycle"
    );
    assert_eq!(damage(page(branch) + 24, &4u64.to_le_bytes()).1, Fault::Order(1));
}

#[test]
fn a_truncated_or_foreign_file_is_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let good = sample(&dir);
    let text = |bytes: &[u8]| fault(&dir, bytes).to_string();
    assert!(text(&good[..good.len() - 1]).contains("truncated"));
    assert!(text(&good[..PAGE_BYTES * 2]).contains("truncated"));
    assert!(text(b"").contains("not a bbolt database"));
    assert!(text(&vec![0; 100_000]).contains("not a bbolt database"));
    assert!(matches!(
        Database::open(Path::new("/nonexistent")),
        Err(Error::Io { .. })
    ));
}

#[test]
fn one_damaged_meta_page_does_no_harm() {
    let dir = tempfile::TempDir::new().unwrap();
    let good = sample(&dir);
    for meta in [0, PAGE_BYTES] {
        let mut bytes = good.clone();
        bytes[meta + 30] ^= 1;
        std::fs::write(file(&dir), &bytes).unwrap();
        Database::open(&file(&dir)).unwrap().check().unwrap();
    }
}

/// Every byte that the tree's structure hangs on, changed: an error or other items, never a panic.
#[test]
fn no_damaged_byte_causes_a_panic() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::TempDir::new().unwrap();
    write(
        &file(&dir),
        &[("key", numbered(60, 100)), ("meta", numbered(3, 8))],
    );
    let bytes = std::fs::read(file(&dir)).unwrap();
    let db = std::fs::File::options().write(true).open(file(&dir)).unwrap();
    // The headers, the elements and the first keys; values change nothing.
    for at in (0..bytes.len()).filter(|at| at % PAGE_BYTES < 200) {
        for with in [0xff, 0x01] {
            db.write_all_at(&[bytes[at] ^ with], at as u64).unwrap();
            if let Ok(database) = Database::open(&file(&dir)) {
                // Both may find it or not; neither may panic.
                read(&database).ok();
                database.check().ok();
            }
        }
        db.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
}
