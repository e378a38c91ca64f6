//! When a member may answer a linearizable read by itself.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::driver::{Event, Status};
use super::inbox::Inbox;

/// None when what is published here is linearizable now: the only voter has published whatever it acknowledged, and nobody else can acknowledge.
/// Otherwise the question to the leader, which is answered with the index that must have been applied first, and dropped when it has to be asked
/// again.
pub fn ask(status: &Status, events: &Inbox<Event>) -> Option<oneshot::Receiver<u64>> {
    if status.alone.load(Ordering::SeqCst) {
        return None;
    }
    Some(ask_raft(events))
}

/// The question even where [`ask`] needs none: raft's thread has looked at the clock by the time it answers.
pub fn ask_raft(events: &Inbox<Event>) -> oneshot::Receiver<u64> {
    let (sender, receiver) = oneshot::channel();
    events.push(Event::ReadIndex(sender));
    receiver
}
