//! Who may do what: users, roles, permissions on key ranges, passwords and tokens.
//!
//! A change is an entry of the log. [`rules`] decides, from what it knows alone, which [`Record`]s the change comes to; the apply thread
//! writes them beside the consistent index and [`AuthStore::install`]s them. A request carries the name of its user and the revision of the
//! rules under which that user was recognised; [`check`] compares both where the request takes effect: in the apply thread for whatever
//! goes through the log, around the read for whatever does not. So a permission that was taken away counts from its entry on.
//!
//! [`password`] hashes, which takes long and has threads of its own. [`token`] recognises a user again: [`simple_token`] by a list,
//! [`jwt`] by a signature. While auth is disabled all of this costs one load of [`AuthStore::is_enabled`].

pub mod check;
pub mod jwt;
pub mod password;
pub mod range_perm_cache;
pub mod rules;
pub mod simple_token;
pub mod token;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_api::authpb::Permission;
use parking_lot::{RwLock, RwLockReadGuard};
use tracing::warn;

use password::Passwords;
use rules::{Record, Rules};
use token::{TokenError, TokenProvider};

/// etcd's name for the user and the role that may do everything.
pub const ROOT: &str = "root";

/// Texts are etcd's, as clients see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("etcdserver: root user does not exist")]
    RootUserNotExist,
    #[error("etcdserver: root user does not have root role")]
    RootRoleNotExist,
    #[error("etcdserver: user name already exists")]
    UserAlreadyExist,
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    #[error("etcdserver: user name not found")]
    UserNotFound,
    #[error("etcdserver: role name already exists")]
    RoleAlreadyExist,
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthFailed,
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    #[error("etcdserver: invalid auth token")]
    InvalidAuthToken,
    #[error("etcdserver: invalid auth management")]
    InvalidAuthMgmt,
    #[error("etcdserver: revision of auth store is old")]
    AuthOldRevision,
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    #[error("bcrypt: password length exceeds 72 bytes")]
    PasswordTooLong,
    #[error("etcdserver: too many requests")]
    Busy,
}

/// A recognised user, and the revision of the rules when it was. Revision 0 is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthInfo {
    pub username: String,
    pub revision: u64,
}

impl AuthInfo {
    pub fn is_anonymous(&self) -> bool {
        self.revision == 0
    }
}

/// What an entry about auth answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Done,
    Status {
        enabled: bool,
        revision: u64,
    },
    /// The simple token, if tokens are of that kind; a signed one is made by whoever answers the client.
    Authenticated {
        token: String,
        revision: u64,
    },
    User(Vec<String>),
    Users(Vec<String>),
    Role(Vec<Permission>),
    Roles(Vec<String>),
}

/// What the flags say.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--auth-token`
    pub token: String,
    /// `--auth-token-ttl`
    pub token_ttl: Duration,
    /// `--bcrypt-cost`
    pub bcrypt_cost: i64,
    /// `--client-cert-auth`: the certificate's common name is a user.
    pub client_cert_auth: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            token: token::SIMPLE.to_owned(),
            token_ttl: simple_token::DEFAULT_TTL,
            bcrypt_cost: i64::from(password::DEFAULT_COST),
            client_cert_auth: false,
        }
    }
}

pub struct AuthStore {
    /// The same as in `rules`, for whoever needs nothing else.
    enabled: AtomicBool,
    rules: RwLock<Rules>,
    pub tokens: TokenProvider,
    pub passwords: Passwords,
    pub client_cert_auth: bool,
}

impl AuthStore {
    pub fn new(rules: Rules, options: &Options) -> Result<AuthStore, TokenError> {
        let store = AuthStore {
            enabled: AtomicBool::new(false),
            rules: RwLock::default(),
            tokens: TokenProvider::from_flag(&options.token, options.token_ttl)?,
            passwords: Passwords::new(options.bcrypt_cost),
            client_cert_auth: options.client_cert_auth,
        };
        store.restore(rules);
        Ok(store)
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::SeqCst)
    }

    pub fn revision(&self) -> u64 {
        self.rules.read().revision
    }

    pub fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read()
    }

    /// Only the apply thread calls this. Tokens of users that are gone or have another password end with it.
    pub fn install(&self, records: &[Record]) {
        let mut rules = self.rules.write();
        for record in records {
            if let Some(user) = rules.forgets(record) {
                self.tokens.invalidate_user(user);
            }
            rules.set(record.clone());
        }
        self.follow(&rules);
    }

    /// Everything anew, as a snapshot says.
    pub fn restore(&self, rules: Rules) {
        let mut current = self.rules.write();
        *current = rules;
        self.tokens.clear();
        self.follow(&current);
    }

    fn follow(&self, rules: &Rules) {
        if !rules.enabled {
            self.tokens.clear();
        }
        let before = self.enabled.swap(rules.enabled, Ordering::SeqCst);
        if rules.enabled && !before && matches!(self.tokens, TokenProvider::Simple(_)) {
            warn!("simple token is not cryptographically signed");
        }
    }
}

#[cfg(test)]
mod tests;
