//! `etcd_mvcc_*_total`: what a transaction does, counted when it ends.

use std::cell::Cell;

use super::{DELETES, PUT_BYTES, PUTS, RANGES, TXNS};

/// As etcd counts: what looks at keys is a range, conditions and previous values too, and whatever did more than one thing was a transaction.
#[derive(Default)]
pub struct Operations {
    ranges: Cell<u32>,
    puts: Cell<u32>,
    put_bytes: Cell<usize>,
    deletes: Cell<u32>,
}

impl Operations {
    pub fn range(&self) {
        self.ranges.set(self.ranges.get() + 1);
    }

    pub fn put(&self, bytes: usize) {
        self.puts.set(self.puts.get() + 1);
        self.put_bytes.set(self.put_bytes.get() + bytes);
    }

    pub fn delete(&self) {
        self.deletes.set(self.deletes.get() + 1);
    }

    /// The end of a transaction; another may begin.
    pub fn settle(&self) {
        let (ranges, puts, deletes) = (self.ranges.take(), self.puts.take(), self.deletes.take());
        for (counter, count) in [(&RANGES, ranges), (&PUTS, puts), (&DELETES, deletes)] {
            if count > 0 {
                counter.add(count.into());
            }
        }
        if puts > 0 {
            PUT_BYTES.add(self.put_bytes.take() as f64);
        }
        if ranges + puts + deletes > 1 {
            TXNS.inc();
        }
    }
}

impl Drop for Operations {
    fn drop(&mut self) {
        self.settle();
    }
}
