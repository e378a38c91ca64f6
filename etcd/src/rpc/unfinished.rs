//! Messages that have begun and are not whole yet: what all clients together may have lying here, and for how long.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::server::ServerError;

/// Over all connections; who comes later waits, and is not read from.
const ROOM_BYTES: usize = 64 * 1024 * 1024;
/// From a message's first bytes to its last: who holds room must use it.
const DEADLINE: Duration = Duration::from_secs(20);

pub struct Unfinished {
    room: Semaphore,
    deadline: Duration,
}

impl Default for Unfinished {
    fn default() -> Self {
        Unfinished {
            room: Semaphore::new(ROOM_BYTES),
            deadline: DEADLINE,
        }
    }
}

impl Unfinished {
    /// Reads what may take up to so many bytes. A message that arrived in one piece need not ask.
    pub async fn read<T>(&self, bytes: usize, reading: impl Future<Output = T>) -> Result<T, ServerError> {
        let whole = async {
            // More than there is room for is read alone. The semaphore is never closed.
            let room = self.room.acquire_many(bytes.min(ROOM_BYTES) as u32).await;
            let read = reading.await;
            drop(room);
            read
        };
        tokio::time::timeout(self.deadline, whole)
            .await
            .map_err(|_| ServerError::Timeout)
    }
}

/// What a body that may have `max` bytes will take, as far as it says.
pub fn at_most(body: &impl http_body::Body, max: usize) -> usize {
    let said = body.size_hint().upper().unwrap_or(u64::MAX);
    max.min(usize::try_from(said).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn who_takes_all_the_room_and_does_not_go_on_is_sent_away() {
        let deadline = Duration::from_millis(200);
        let unfinished = Unfinished {
            deadline,
            ..Unfinished::default()
        };
        let later = async {
            tokio::time::sleep(deadline / 2).await;
            unfinished.read(1, async { "read" }).await
        };
        let (slow, next) = tokio::join!(unfinished.read(usize::MAX, pending::<()>()), later);
        assert!(matches!(slow, Err(ServerError::Timeout)));
        assert_eq!(next.unwrap(), "read");
    }
}
