//! A thread with an inbox, whose work can be done by whoever filled the inbox instead.
//!
//! Waking a thread and waiting for it costs more than a small entry's way through the log and the store together. So where little waits and
//! nothing is lost by it, the raft thread attends to the inboxes that it fills, and their own threads sleep on. Either way a worker's batches
//! are taken one after the other, in order.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::inbox::Inbox;

pub trait Worker<T>: Send {
    /// One batch. False when it was told to stop.
    fn turn(&mut self, batch: &mut Vec<T>) -> bool;

    /// A turn is due after so long, whatever waits.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// It may be about to wait for something that only its own thread should wait for.
    fn wants_its_thread(&self) -> bool {
        false
    }
}

pub struct Stage<T, W> {
    inbox: Arc<Inbox<T>>,
    worker: Mutex<W>,
}

/// A stage as whoever fills its inbox knows it.
pub trait Attend: Send + Sync {
    /// Until [`Attend::leave`], what is pushed wakes nobody.
    fn attend(&self);
    /// Whether something was pushed since.
    fn is_wanted(&self) -> bool;
    /// Does what was pushed since.
    fn help(&self);
    fn leave(&self);
}

impl<T: Send, W: Worker<T>> Stage<T, W> {
    pub fn new(inbox: Arc<Inbox<T>>, worker: W) -> Arc<Self> {
        Arc::new(Stage {
            inbox,
            worker: Mutex::new(worker),
        })
    }

    /// The stage's own thread.
    pub fn run(&self) {
        let mut batch = Vec::new();
        loop {
            let timeout = self.worker.lock().timeout();
            self.inbox.wait(timeout);
            let mut worker = self.worker.lock();
            if self.inbox.is_closed() {
                return;
            }
            self.inbox.take(&mut batch);
            if !worker.turn(&mut batch) {
                return;
            }
        }
    }
}

impl<T: Send, W: Worker<T>> Attend for Stage<T, W> {
    fn attend(&self) {
        self.inbox.attend();
    }

    fn is_wanted(&self) -> bool {
        self.inbox.is_wanted()
    }

    fn help(&self) {
        let Some(mut worker) = self.worker.try_lock() else {
            return;
        };
        let mut batch = Vec::new();
        if !self.inbox.is_attended() || worker.wants_its_thread() {
            return;
        }
        self.inbox.take(&mut batch);
        if !batch.is_empty() && !worker.turn(&mut batch) {
            self.inbox.close();
        }
    }

    fn leave(&self) {
        self.inbox.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it was given, and by which thread.
    #[derive(Default)]
    struct Notes(Vec<(u32, std::thread::ThreadId)>);

    impl Worker<u32> for Noted {
        fn turn(&mut self, batch: &mut Vec<u32>) -> bool {
            let mut notes = self.lock();
            let thread = std::thread::current().id();
            let stop = batch.contains(&0);
            notes.0.extend(batch.drain(..).map(|item| (item, thread)));
            !stop
        }
    }

    type Noted = Arc<Mutex<Notes>>;

    fn stage() -> (Arc<Inbox<u32>>, Noted, Arc<Stage<u32, Noted>>) {
        let (inbox, notes) = (Arc::new(Inbox::default()), Noted::default());
        let stage = Stage::new(inbox.clone(), notes.clone());
        (inbox, notes, stage)
    }

    fn on_its_thread(stage: &Arc<Stage<u32, Noted>>) -> std::thread::JoinHandle<()> {
        let stage = stage.clone();
        std::thread::spawn(move || stage.run())
    }

    fn items(notes: &Mutex<Notes>) -> Vec<u32> {
        notes.lock().0.iter().map(|(item, _)| *item).collect()
    }

    #[test]
    fn what_is_attended_to_is_done_by_the_one_that_pushed_it() {
        let (inbox, notes, stage) = stage();
        let own = on_its_thread(&stage);
        stage.attend();
        inbox.push(1);
        inbox.push(2);
        stage.help();
        stage.leave();
        let here = std::thread::current().id();
        assert_eq!(notes.lock().0, [(1, here), (2, here)]);
        inbox.push(3);
        inbox.push(0);
        own.join().unwrap();
        assert_eq!(items(&notes), [1, 2, 3, 0]);
        assert_ne!(notes.lock().0[2].1, here);
    }

    #[test]
    fn a_stop_that_was_helped_with_ends_the_stages_thread() {
        let (inbox, notes, stage) = stage();
        let own = on_its_thread(&stage);
        stage.attend();
        inbox.push(0);
        stage.help();
        stage.leave();
        own.join().unwrap();
        assert_eq!(items(&notes), [0]);
    }

    #[test]
    fn what_waited_before_is_left_to_the_stages_thread() {
        let (inbox, notes, stage) = stage();
        inbox.push(1);
        stage.attend();
        inbox.push(2);
        stage.help();
        assert!(items(&notes).is_empty());
        stage.leave();
        inbox.push(0);
        stage.run();
        assert_eq!(items(&notes), [1, 2, 0]);
    }

    #[test]
    fn what_was_not_helped_with_wakes_the_stages_thread_on_leaving() {
        let (inbox, notes, stage) = stage();
        let own = on_its_thread(&stage);
        stage.attend();
        inbox.push(0);
        stage.leave();
        own.join().unwrap();
        assert_eq!(items(&notes), [0]);
    }
}
