//! Users, roles and the revision: what a change comes to, decided without touching anything.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etcd_api::authpb::{Permission, Role, User, permission::Type};
use etcd_api::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest,
};

use super::range_perm_cache::{self, Granted, Kind};
use super::{AuthError, AuthInfo, ROOT};
use crate::mvcc::key::KeyRange;

/// One thing that changes, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Enabled(bool),
    Revision(u64),
    User(User),
    NoUser(String),
    Role(Role),
    NoRole(String),
}

/// What a change comes to; nothing when everything is already so.
pub type Decision = Result<Vec<Record>, AuthError>;

#[derive(Debug)]
pub struct Rules {
    pub enabled: bool,
    /// Every change of users, roles and permissions adds one.
    pub revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    granted: HashMap<String, Granted>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            granted: HashMap::new(),
        }
    }
}

fn name_of(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn has_role(user: &User, role: &str) -> bool {
    user.roles.iter().any(|own| own == role)
}

impl Rules {
    /// From what is stored, in any order.
    pub fn restore(records: impl IntoIterator<Item = Record>) -> Rules {
        let mut rules = Rules::default();
        for record in records {
            rules.enter(record);
        }
        let names: Vec<String> = rules.users.keys().cloned().collect();
        names.iter().for_each(|name| rules.refresh(name));
        rules
    }

    pub fn set(&mut self, record: Record) {
        let touched = self.touched(&record);
        self.enter(record);
        touched.iter().for_each(|name| self.refresh(name));
    }

    fn enter(&mut self, record: Record) {
        match record {
            Record::Enabled(enabled) => self.enabled = enabled,
            Record::Revision(revision) => self.revision = revision,
            Record::User(user) => drop(self.users.insert(name_of(&user.name), user)),
            Record::NoUser(name) => drop(self.users.remove(&name)),
            Record::Role(role) => drop(self.roles.insert(name_of(&role.name), role)),
            Record::NoRole(name) => drop(self.roles.remove(&name)),
        }
    }

    /// Whose permissions a record changes.
    fn touched(&self, record: &Record) -> Vec<String> {
        let holders = |role: &str| {
            let holds = |(_, user): &(&String, &User)| has_role(user, role);
            self.users
                .iter()
                .filter(holds)
                .map(|(name, _)| name.clone())
                .collect()
        };
        match record {
            Record::User(user) => vec![name_of(&user.name)],
            Record::NoUser(name) => vec![name.clone()],
            Record::Role(role) => holders(&name_of(&role.name)),
            Record::NoRole(name) => holders(name),
            Record::Enabled(_) | Record::Revision(_) => Vec::new(),
        }
    }

    fn refresh(&mut self, name: &str) {
        let Some(user) = self.users.get(name) else {
            self.granted.remove(name);
            return;
        };
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        let granted = Granted::merge(roles.flat_map(|role| &role.key_permission));
        self.granted.insert(name.to_owned(), granted);
    }

    /// The user whose tokens a record makes void.
    pub fn forgets<'a>(&self, record: &'a Record) -> Option<&'a str> {
        match record {
            Record::NoUser(name) => Some(name),
            Record::User(user) => {
                let name = std::str::from_utf8(&user.name).ok()?;
                (self.users.get(name)?.password != user.password).then_some(name)
            }
            _ => None,
        }
    }

    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    fn existing_user(&self, name: &str) -> Result<&User, AuthError> {
        self.users.get(name).ok_or(AuthError::UserNotFound)
    }

    fn existing_role(&self, name: &str) -> Result<&Role, AuthError> {
        self.roles.get(name).ok_or(AuthError::RoleNotFound)
    }

    fn changed(&self, mut records: Vec<Record>) -> Decision {
        records.push(Record::Revision(self.revision + 1));
        Ok(records)
    }

    /// Somebody must be able to undo it.
    pub fn enable(&self) -> Decision {
        if self.enabled {
            return Ok(Vec::new());
        }
        let root = self.users.get(ROOT).ok_or(AuthError::RootUserNotExist)?;
        match has_role(root, ROOT) {
            true => Ok(vec![Record::Enabled(true)]),
            false => Err(AuthError::RootRoleNotExist),
        }
    }

    pub fn disable(&self) -> Decision {
        match self.enabled {
            true => self.changed(vec![Record::Enabled(false)]),
            false => Ok(Vec::new()),
        }
    }

    pub fn user_add(&self, request: &AuthUserAddRequest) -> Decision {
        if request.name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(AuthError::UserAlreadyExist);
        }
        let options = request.options.unwrap_or_default();
        let password = match options.no_password {
            true => Bytes::new(),
            false => hash_of(&request.hashed_password)?,
        };
        self.changed(vec![Record::User(User {
            name: request.name.clone().into(),
            password,
            roles: Vec::new(),
            options: Some(options),
        })])
    }

    pub fn user_delete(&self, name: &str) -> Decision {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidAuthMgmt);
        }
        self.existing_user(name)?;
        self.changed(vec![Record::NoUser(name.to_owned())])
    }

    pub fn user_change_password(&self, request: &AuthUserChangePasswordRequest) -> Decision {
        let user = self.existing_user(&request.name)?;
        let password = match user.options.unwrap_or_default().no_password {
            true => Bytes::new(),
            false => hash_of(&request.hashed_password)?,
        };
        self.changed(vec![Record::User(User {
            password,
            ..user.clone()
        })])
    }

    /// The root role needs no other definition.
    pub fn user_grant_role(&self, name: &str, role: &str) -> Decision {
        let user = self.existing_user(name)?;
        if role != ROOT {
            self.existing_role(role)?;
        }
        let Err(place) = user.roles.binary_search_by(|own| own.as_str().cmp(role)) else {
            return Ok(Vec::new());
        };
        let mut user = user.clone();
        user.roles.insert(place, role.to_owned());
        self.changed(vec![Record::User(user)])
    }

    pub fn user_revoke_role(&self, name: &str, role: &str) -> Decision {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidAuthMgmt);
        }
        let user = self.existing_user(name)?;
        if !has_role(user, role) {
            return Err(AuthError::RoleNotGranted);
        }
        self.changed(vec![Record::User(without_role(user, role))])
    }

    pub fn user_get(&self, name: &str) -> Result<Vec<String>, AuthError> {
        self.existing_user(name).map(|user| user.roles.clone())
    }

    pub fn user_list(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    pub fn role_add(&self, name: &str) -> Decision {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleAlreadyExist);
        }
        self.changed(vec![Record::Role(Role {
            name: name.to_owned().into(),
            key_permission: Vec::new(),
        })])
    }

    pub fn role_delete(&self, name: &str) -> Decision {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidAuthMgmt);
        }
        self.existing_role(name)?;
        let holders = self.users.values().filter(|user| has_role(user, name));
        let mut records: Vec<Record> = holders
            .map(|user| Record::User(without_role(user, name)))
            .collect();
        records.push(Record::NoRole(name.to_owned()));
        self.changed(records)
    }

    pub fn role_grant_permission(&self, request: &AuthRoleGrantPermissionRequest) -> Decision {
        let permission = request.perm.as_ref().ok_or(AuthError::PermissionNotGiven)?;
        if !range_perm_cache::is_valid(&permission.key, &permission.range_end) {
            return Err(AuthError::InvalidAuthMgmt);
        }
        let mut role = self.existing_role(&request.name)?.clone();
        let same = |own: &&mut Permission| own.key == permission.key && own.range_end == permission.range_end;
        match role.key_permission.iter_mut().find(same) {
            Some(own) => own.perm_type = permission.perm_type,
            None => {
                role.key_permission.push(permission.clone());
                role.key_permission
                    .sort_by(|left, right| left.key.cmp(&right.key));
            }
        }
        self.changed(vec![Record::Role(role)])
    }

    pub fn role_revoke_permission(&self, request: &AuthRoleRevokePermissionRequest) -> Decision {
        let mut role = self.existing_role(&request.role)?.clone();
        let before = role.key_permission.len();
        role.key_permission
            .retain(|own| own.key != request.key || own.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(AuthError::PermissionNotGranted);
        }
        self.changed(vec![Record::Role(role)])
    }

    pub fn role_get(&self, name: &str) -> Result<Vec<Permission>, AuthError> {
        let role = self.existing_role(name)?;
        if name == ROOT {
            return Ok(vec![Permission {
                perm_type: Type::Readwrite as i32,
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            }]);
        }
        Ok(role.key_permission.clone())
    }

    pub fn role_list(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    pub fn holds_role(&self, name: &str, role: &str) -> bool {
        self.users.get(name).is_some_and(|user| has_role(user, role))
    }

    /// Whether `who` may read or write all of `range`.
    pub fn permits(&self, who: &AuthInfo, range: &KeyRange, kind: Kind) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        if who.is_anonymous() {
            return Err(AuthError::UserEmpty);
        }
        if who.revision < self.revision {
            return Err(AuthError::AuthOldRevision);
        }
        let granted = |rules: &Rules| {
            rules
                .granted
                .get(&who.username)
                .is_some_and(|granted| granted.covers(range, kind))
        };
        match self.holds_role(&who.username, ROOT) || granted(self) {
            true => Ok(()),
            false => Err(AuthError::PermissionDenied),
        }
    }

    pub fn permits_admin(&self, who: &AuthInfo) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        if who.username.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        let user = self.existing_user(&who.username)?;
        match has_role(user, ROOT) {
            true => Ok(()),
            false => Err(AuthError::PermissionDenied),
        }
    }
}

fn without_role(user: &User, role: &str) -> User {
    let mut user = user.clone();
    user.roles.retain(|own| own != role);
    user
}

/// The hash was made before the entry: a password never gets into the log.
fn hash_of(encoded: &str) -> Result<Bytes, AuthError> {
    STANDARD
        .decode(encoded)
        .map(Bytes::from)
        .map_err(|_| AuthError::NoPasswordUser)
}
