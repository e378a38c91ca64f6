//! bcrypt, on threads where nothing else waits for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tracing::warn;

use super::AuthError;

pub const DEFAULT_COST: u32 = 10;
const MIN_COST: i64 = 4;
const MAX_COST: i64 = 31;
/// bcrypt looks at no more of a password.
const MAX_PASSWORD_BYTES: usize = 72;
/// Who waits longer than this for a turn is sent away.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Passwords {
    cost: u32,
    turns: Arc<Semaphore>,
    /// A hash of nothing that anybody knows.
    nobody: Arc<OnceLock<Bytes>>,
}

impl Passwords {
    /// As etcd: a cost out of bounds is the default one.
    pub fn new(cost: i64) -> Self {
        let cost = match cost {
            MIN_COST..=MAX_COST => cost as u32,
            _ => {
                warn!(
                    "min-cost" = MIN_COST,
                    "max-cost" = MAX_COST,
                    "default-cost" = DEFAULT_COST,
                    "given-cost" = cost,
                    "--bcrypt-cost is out of bounds; the default cost is used"
                );
                DEFAULT_COST
            }
        };
        // A flood of passwords leaves half of the cores to everything else.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords {
            cost,
            turns: Arc::new(Semaphore::new((cores / 2).max(1))),
            nobody: Arc::default(),
        }
    }

    pub async fn hash(&self, password: String) -> Result<Bytes, AuthError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(AuthError::PasswordTooLong);
        }
        let cost = self.cost;
        self.turn(move || hash(password.as_bytes(), cost)).await
    }

    /// A user that does not exist takes as long as a wrong password.
    pub async fn verify(&self, stored: Option<Bytes>, password: String) -> Result<bool, AuthError> {
        let mut password = password.into_bytes();
        password.truncate(MAX_PASSWORD_BYTES);
        password.shrink_to_fit();
        let (cost, nobody) = (self.cost, self.nobody.clone());
        self.turn(move || match stored {
            Some(stored) => Ok(is_password(&stored, &password)),
            None => {
                let nobody =
                    nobody.get_or_init(|| hash(&rand::random::<[u8; 16]>(), cost).unwrap_or_default());
                is_password(nobody, &password);
                Ok(false)
            }
        })
        .await
    }

    async fn turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(AuthError::Busy);
        };
        // The turn goes along: a caller that left does not make room for another while its work goes on.
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
        .map_err(|_| AuthError::Busy)?
    }
}

/// With etcd's prefix, `$2a$`.
fn hash(password: &[u8], cost: u32) -> Result<Bytes, AuthError> {
    let parts = bcrypt::hash_with_result(password, cost).map_err(|_| AuthError::AuthFailed)?;
    Ok(parts.format_for_version(bcrypt::Version::TwoA).into())
}

/// Compares in constant time.
fn is_password(stored: &[u8], password: &[u8]) -> bool {
    std::str::from_utf8(stored).is_ok_and(|stored| bcrypt::verify(password, stored).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_are_etcds_and_are_recognised() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("secret".to_owned()).await.unwrap();
        assert!(hash.starts_with(b"$2a$04$"), "{hash:?}");
        assert!(
            passwords
                .verify(Some(hash.clone()), "secret".to_owned())
                .await
                .unwrap()
        );
        assert!(!passwords.verify(Some(hash), "Secret".to_owned()).await.unwrap());
        assert!(!passwords.verify(None, "secret".to_owned()).await.unwrap());
        assert!(!passwords.verify(Some(Bytes::new()), String::new()).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_that_gos_bcrypt_made_is_recognised() {
        let stored = Bytes::from_static(b"$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga");
        assert!(
            Passwords::new(10)
                .verify(Some(stored), "allmine".to_owned())
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn a_password_has_at_most_72_bytes() {
        let passwords = Passwords::new(4);
        assert!(passwords.hash("x".repeat(72)).await.is_ok());
        assert_eq!(
            passwords.hash("x".repeat(73)).await,
            Err(AuthError::PasswordTooLong)
        );
    }
}
