//! How a watcher that is behind becomes present again: from recent frames, or piece by piece from history, while its stream has room.

use tracing::warn;

use super::HubThread;
use super::stream::Seeing;
use crate::watch::catch_up::{Job, Piece};

impl HubThread {
    pub(super) fn drained(&mut self, stream_id: u64) {
        let Some(stream) = self.streams.get(&stream_id) else {
            return;
        };
        let behind = stream
            .watchers
            .iter()
            .filter(|(_, watcher)| watcher.state() == Seeing::Behind);
        let behind: Vec<i64> = behind.map(|(id, _)| *id).collect();
        behind.into_iter().for_each(|id| self.catch_up(stream_id, id));
    }

    pub(super) fn caught_up(&mut self, piece: Piece) {
        let Some(stream) = self.streams.get_mut(&piece.stream) else {
            return;
        };
        let Some(watcher) = stream.watchers.get_mut(&piece.watch_id) else {
            return;
        };
        if let Some(error) = piece.failure {
            return self.fail(piece.stream, piece.watch_id, &error);
        }
        let (id, seen) = (piece.watch_id, piece.next - 1);
        watcher.send(id, &piece.bodies, seen, &self.header, &stream.outbox);
        watcher.set_state(Seeing::Behind);
        self.catch_up(piece.stream, id);
    }

    /// Does nothing for a watcher that is not behind.
    pub(super) fn catch_up(&mut self, stream_id: u64, id: i64) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let Some(watcher) = stream.watchers.get_mut(&id) else {
            return;
        };
        if watcher.state() != Seeing::Behind {
            return;
        }
        let seen = self.recent.seen;
        if watcher.next > seen {
            watcher.set_state(Seeing::Present);
            return self.answer_progress(stream_id);
        }
        if !stream.outbox.has_room() {
            return;
        }
        if self.recent.reach_back_to(watcher.next) {
            match self.recent.since(watcher.next, &watcher.interest, &self.store) {
                Ok(bodies) => {
                    watcher.send(id, &bodies, seen, &self.header, &stream.outbox);
                    watcher.set_state(Seeing::Present);
                    return self.answer_progress(stream_id);
                }
                // History says the same, and says it as a cancellation when it cannot be read.
                Err(source) => warn!(error = %source, "failed to read a previous value for a watcher"),
            }
        }
        watcher.set_state(Seeing::CatchingUp);
        self.history.push(Some(Job {
            stream: stream_id,
            watch_id: id,
            interest: watcher.interest.clone(),
            from: watcher.next,
            until: seen,
        }));
    }
}
