//! Tokens that mean something only to those who keep the list: sixteen letters, a dot, and the index of the entry that made them.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;

use crate::clock::Millis;

pub const DEFAULT_TTL: Duration = Duration::from_secs(300);
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PREFIX_LETTERS: usize = 16;
/// Tokens that ended are looked for at most this often.
const SWEEP_MS: u64 = 1000;

pub struct SimpleTokens {
    ttl_ms: u64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    tokens: HashMap<String, Token>,
    next_sweep: Millis,
}

struct Token {
    user: String,
    expiry: Millis,
}

impl SimpleTokens {
    pub fn new(ttl: Duration) -> Self {
        let ttl = if ttl.is_zero() { DEFAULT_TTL } else { ttl };
        SimpleTokens {
            ttl_ms: ttl.as_millis() as u64,
            known: Mutex::default(),
        }
    }

    pub fn assign(&self, user: &str, token: &str, now: Millis) {
        let mut known = self.known.lock();
        if known.next_sweep <= now {
            known.next_sweep = now.plus(SWEEP_MS);
            known.tokens.retain(|_, token| token.expiry > now);
        }
        let expiry = now.plus(self.ttl_ms);
        let user = user.to_owned();
        known.tokens.insert(token.to_owned(), Token { user, expiry });
    }

    /// Whose token it is; using it gives it its whole time again.
    pub fn user(&self, token: &str, now: Millis) -> Option<String> {
        let mut known = self.known.lock();
        let found = known.tokens.get_mut(token).filter(|token| token.expiry > now)?;
        found.expiry = now.plus(self.ttl_ms);
        Some(found.user.clone())
    }

    pub fn invalidate_user(&self, user: &str) {
        self.known.lock().tokens.retain(|_, token| token.user != user);
    }

    pub fn clear(&self) {
        self.known.lock().tokens.clear();
    }
}

/// What the member that checked the password gives to the entry.
pub fn prefix() -> String {
    // The thread's generator is cryptographic and seeded by the system.
    let mut random = rand::rng();
    (0..PREFIX_LETTERS)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

/// The entry that must have been applied before the token can be known; None for what is no simple token.
pub fn index_of(token: &str) -> Option<u64> {
    let (prefix, index) = token.split_once('.')?;
    (!prefix.contains('.')).then(|| index.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_from_its_last_use() {
        let tokens = SimpleTokens::new(Duration::from_secs(10));
        tokens.assign("alice", "a.1", Millis(0));
        assert_eq!(tokens.user("a.1", Millis(9_999)).as_deref(), Some("alice"));
        assert_eq!(tokens.user("a.1", Millis(19_998)).as_deref(), Some("alice"));
        assert_eq!(tokens.user("a.1", Millis(29_998)), None);
        tokens.assign("bob", "b.2", Millis(40_000));
        assert_eq!(tokens.known.lock().tokens.len(), 1, "what ended takes no memory");
    }

    #[test]
    fn a_users_tokens_end_together() {
        let tokens = SimpleTokens::new(Duration::ZERO);
        for (user, token) in [("alice", "a.1"), ("alice", "b.2"), ("bob", "c.3")] {
            tokens.assign(user, token, Millis(0));
        }
        tokens.invalidate_user("alice");
        assert_eq!(tokens.user("a.1", Millis(1)), None);
        assert_eq!(tokens.user("b.2", Millis(1)), None);
        assert_eq!(tokens.user("c.3", Millis(299_999)).as_deref(), Some("bob"));
    }

    #[test]
    fn the_index_is_read_from_the_token() {
        assert_eq!(index_of(&format!("{}.42", prefix())), Some(42));
        for bad in ["", "abc", "abc.", "abc.x", "a.b.1", "abc.-1"] {
            assert_eq!(index_of(bad), None, "{bad:?}");
        }
        assert_ne!(prefix(), prefix());
    }
}
