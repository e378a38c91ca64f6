//! Entries about users, roles and tokens; and whether the user of any other entry may do what it says.

use etcd_api::etcdserverpb::{InternalAuthenticateRequest, InternalRaftRequest};
use tracing::{info, warn};

use super::{Answer, Applier, ApplyError};
use crate::auth::check::Check;
use crate::auth::rules::{Decision, Rules};
use crate::auth::token::TokenProvider;
use crate::auth::{AuthError, AuthInfo, Reply};
use crate::meta;

impl Applier {
    /// The rules are those of this entry: what an entry before it took away is gone.
    pub(super) fn authorize(&self, request: &InternalRaftRequest) -> Result<(), ApplyError> {
        let auth = &self.state.auth;
        if !auth.is_enabled() {
            return Ok(());
        }
        let who = request
            .header
            .as_ref()
            .map_or_else(AuthInfo::default, |header| AuthInfo {
                username: header.username.clone(),
                revision: header.auth_revision,
            });
        let keys_of = |lease| self.state.lessor.lock().keys_of(lease).unwrap_or_default();
        let check = Check {
            rules: &auth.rules(),
            who: &who,
            keys_of: &keys_of,
        };
        Ok(check.entry(request)?)
    }

    /// None when the entry is about something else.
    pub(super) fn auth(&mut self, request: &InternalRaftRequest) -> Option<Result<Answer, ApplyError>> {
        let replied = match self.ask(request) {
            Some(reply) => Some(reply),
            None => self.change(request).map(|done| done.map(|()| Reply::Done)),
        };
        replied.map(|reply| Ok(Answer::Auth(reply?)))
    }

    /// What changes nothing that is stored.
    fn ask(&self, request: &InternalRaftRequest) -> Option<Result<Reply, AuthError>> {
        let rules = self.state.auth.rules();
        if request.auth_status.is_some() {
            let (enabled, revision) = (rules.enabled, rules.revision);
            return Some(Ok(Reply::Status { enabled, revision }));
        }
        if let Some(authenticate) = &request.authenticate {
            return Some(self.authenticate(&rules, authenticate));
        }
        if let Some(get) = &request.auth_user_get {
            return Some(rules.user_get(&get.name).map(Reply::User));
        }
        if request.auth_user_list.is_some() {
            return Some(Ok(Reply::Users(rules.user_list())));
        }
        if let Some(get) = &request.auth_role_get {
            return Some(rules.role_get(&get.role).map(Reply::Role));
        }
        if request.auth_role_list.is_some() {
            return Some(Ok(Reply::Roles(rules.role_list())));
        }
        None
    }

    /// Every member learns the token, so that each of them recognises it. The password was checked by the member that proposed.
    fn authenticate(&self, rules: &Rules, request: &InternalAuthenticateRequest) -> Result<Reply, AuthError> {
        if !rules.enabled {
            return Err(AuthError::AuthNotEnabled);
        }
        let user = rules.user(&request.name).ok_or(AuthError::AuthFailed)?;
        if user.options.unwrap_or_default().no_password {
            return Err(AuthError::AuthFailed);
        }
        let mut token = String::new();
        if let TokenProvider::Simple(tokens) = &self.state.auth.tokens {
            token = format!("{}.{}", request.simple_token, self.frame.index);
            tokens.assign(&request.name, &token, self.clock.now());
        }
        let revision = rules.revision;
        Ok(Reply::Authenticated { token, revision })
    }

    fn change(&mut self, request: &InternalRaftRequest) -> Option<Result<(), AuthError>> {
        let (decision, what, whom) = decide(&self.state.auth.rules(), request)?;
        Some(self.carry_out(decision, what, whom))
    }

    fn carry_out(&mut self, decision: Decision, what: &'static str, whom: &str) -> Result<(), AuthError> {
        let records = decision.inspect_err(|error| {
            warn!("name" = whom, error = %error, "refused: {what}");
        })?;
        for record in &records {
            meta::put_auth(&mut self.writer, record);
        }
        self.state.auth.install(&records);
        info!("name" = whom, changed = !records.is_empty(), "{what}");
        Ok(())
    }
}

/// The decision, what it is about and who or what is named; None for an entry about something else.
fn decide<'a>(rules: &Rules, request: &'a InternalRaftRequest) -> Option<(Decision, &'static str, &'a str)> {
    if request.auth_enable.is_some() {
        return Some((rules.enable(), "enabled authentication", ""));
    }
    if request.auth_disable.is_some() {
        return Some((rules.disable(), "disabled authentication", ""));
    }
    if let Some(add) = &request.auth_user_add {
        return Some((rules.user_add(add), "added a user", &add.name));
    }
    if let Some(delete) = &request.auth_user_delete {
        return Some((rules.user_delete(&delete.name), "deleted a user", &delete.name));
    }
    if let Some(change) = &request.auth_user_change_password {
        return Some((
            rules.user_change_password(change),
            "changed a password of a user",
            &change.name,
        ));
    }
    if let Some(grant) = &request.auth_user_grant_role {
        let decision = rules.user_grant_role(&grant.user, &grant.role);
        return Some((decision, "granted a role to a user", &grant.user));
    }
    if let Some(revoke) = &request.auth_user_revoke_role {
        let decision = rules.user_revoke_role(&revoke.name, &revoke.role);
        return Some((decision, "revoked a role from a user", &revoke.name));
    }
    if let Some(add) = &request.auth_role_add {
        return Some((rules.role_add(&add.name), "created a role", &add.name));
    }
    if let Some(delete) = &request.auth_role_delete {
        return Some((rules.role_delete(&delete.role), "deleted a role", &delete.role));
    }
    if let Some(grant) = &request.auth_role_grant_permission {
        let decision = rules.role_grant_permission(grant);
        return Some((decision, "granted/updated a permission to a role", &grant.name));
    }
    if let Some(revoke) = &request.auth_role_revoke_permission {
        let decision = rules.role_revoke_permission(revoke);
        return Some((decision, "revoked a permission on range", &revoke.role));
    }
    None
}
