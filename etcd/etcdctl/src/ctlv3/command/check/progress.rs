//! How far a check is, on a terminal.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Progress {
    total: usize,
    done: AtomicUsize,
    visible: bool,
}

impl Progress {
    pub fn new(total: usize) -> Self {
        Progress {
            total,
            done: AtomicUsize::new(0),
            visible: stderr().is_terminal(),
        }
    }

    pub fn add(&self, count: usize) {
        let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
        // A hundred lines are enough for any total.
        if self.visible && (done == self.total || done.is_multiple_of(self.total.div_ceil(100))) {
            let percent = done as f64 / self.total as f64 * 100.0;
            // Only decoration.
            write!(stderr(), "\r{done} / {} {percent:.2}%", self.total).ok();
        }
    }

    pub fn finish(&self) {
        if self.visible {
            // Only decoration.
            writeln!(stderr()).ok();
        }
    }
}
