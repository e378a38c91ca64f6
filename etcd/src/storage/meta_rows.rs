//! The small buckets beside the keys, as the writer keeps them to repeat them: leases may be many.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::writer::Meta;
use crate::runs::Runs;

/// By the bucket's byte and the key behind it.
#[derive(Default)]
pub struct MetaRows(Runs<Box<[u8]>>);

impl MetaRows {
    pub fn insert(&mut self, bucket: u8, key: &[u8], value: &[u8]) {
        let set = |old: &mut Box<[u8]>| *old = value.into();
        self.0.enter(&row_key(bucket, key), set, || value.into());
    }

    pub fn remove(&mut self, bucket: u8, key: &[u8]) {
        self.0.remove(&row_key(bucket, key));
    }

    /// In order.
    pub fn for_each(&self, mut visit: impl FnMut(u8, &[u8], &[u8])) {
        // Nothing breaks it off.
        let _: ControlFlow<()> = self.0.visit(&[], |key, value| {
            if let Some((bucket, key)) = key.split_first() {
                visit(*bucket, key, value);
            }
            ControlFlow::Continue(())
        });
    }

    pub fn to_map(&self) -> Meta {
        let mut map = Meta::new();
        self.for_each(|bucket, key, value| {
            let place = (bucket, Bytes::copy_from_slice(key));
            map.insert(place, Bytes::copy_from_slice(value));
        });
        map
    }
}

impl From<&Meta> for MetaRows {
    fn from(map: &Meta) -> MetaRows {
        let mut rows = MetaRows::default();
        for ((bucket, key), value) in map {
            rows.insert(*bucket, key, value);
        }
        rows
    }
}

fn row_key(bucket: u8, key: &[u8]) -> Vec<u8> {
    [&[bucket], key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_maps_in_its_order() {
        let mut map = Meta::new();
        let mut rows = MetaRows::from(&map);
        for number in 0..1000_u64 {
            let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            let (bucket, key) = ((id[0] % 3), &id[..(number % 9) as usize]);
            if number % 4 == 3 {
                let known = map.keys().nth(number as usize % map.len()).cloned();
                let known = known.expect("one of them");
                rows.remove(known.0, &known.1);
                map.remove(&known);
            } else {
                rows.insert(bucket, key, &id);
                map.insert((bucket, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(&id));
            }
            assert_eq!(rows.to_map().len(), map.len());
        }
        assert_eq!(rows.to_map(), map);
        assert_eq!(MetaRows::from(&map).to_map(), map);
        let mut order = Vec::new();
        rows.for_each(|bucket, key, _| order.push((bucket, Bytes::copy_from_slice(key))));
        assert!(order.iter().eq(map.keys()));
    }
}
