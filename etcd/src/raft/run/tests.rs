//! A raft thread that a disk keeps.

use std::time::Instant;

use raft::eraftpb::{ConfState, Entry, Message, SnapshotMetadata};

use super::*;
use crate::apply::Arrived;
use crate::raft::driver::Status;
use crate::raft::log::Log;
use crate::raft::node::{Node, Timing};

#[derive(Default)]
struct Nowhere;

impl Outside for Nowhere {
    fn apply(&mut self, _: Vec<Entry>) {}
    fn send(&mut self, _: Vec<Message>) {}
    fn arrived(&mut self, _: Box<Arrived>) {}
    fn install(&mut self, _: &SnapshotMetadata) {}
    fn decided(&mut self) {}
    fn leadership(&mut self, _: bool) {}
    fn fetch(&mut self, _: crate::raft::older::Fetch) {}
    fn stalled(&mut self, _: Duration) {}
    fn space_changed(&mut self) {}
}

/// Takes as long as the test holds its lock.
#[derive(Default)]
struct SlowDisk {
    kept: Mutex<()>,
    helped: AtomicU64,
}

impl Attend for SlowDisk {
    fn attend(&self) {}
    fn is_wanted(&self) -> bool {
        true
    }
    fn help(&self) {
        drop(self.kept.lock());
        self.helped.fetch_add(1, Ordering::SeqCst);
    }
    fn leave(&self) {}
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn ticks_go_on_while_the_raft_thread_waits_for_a_disk_and_it_comes_back() {
    let conf_state = ConfState {
        voters: vec![1, 2, 3],
        ..ConfState::default()
    };
    let log = Log::new(Default::default(), conf_state.clone(), (0, 0), Vec::new());
    let timing = Timing {
        election_ticks: 10,
        pre_vote: true,
        timeout_ticks: None,
    };
    let status = Arc::new(Status::default());
    let driver = Driver::new(
        Node::new(1, log, 0, &timing).unwrap(),
        1,
        Arc::default(),
        Arc::default(),
        status.clone(),
        Nowhere,
        Duration::from_millis(10),
        conf_state,
    );
    let disk = Arc::new(SlowDisk::default());
    let raft = Loop::new(driver, vec![disk.clone()]);
    let threads = [
        std::thread::spawn({
            let raft = raft.clone();
            move || raft.run()
        }),
        std::thread::spawn({
            let raft = raft.clone();
            move || raft.stand_in()
        }),
    ];
    for _ in 0..3 {
        let kept = disk.kept.lock();
        raft.events.push(Event::SpaceChanged);
        until("helping", || raft.helping.is_on());
        let before = status.last_tick_ms.load(Ordering::SeqCst);
        until("a tick of the stand-in", || {
            status.last_tick_ms.load(Ordering::SeqCst) > before + 50
        });
        assert!(raft.helping.taken.load(Ordering::SeqCst));
        let helped = disk.helped.load(Ordering::SeqCst);
        drop(kept);
        until("the raft thread is back", || {
            disk.helped.load(Ordering::SeqCst) > helped && !raft.helping.taken.load(Ordering::SeqCst)
        });
        // Long enough for the stand-in to sleep for good.
        std::thread::sleep(raft.patience * (LOOKS + 5));
    }
    let kept = disk.kept.lock();
    raft.events.push(Event::Stop);
    drop(kept);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
