//! The Auth service. Everything goes through the log, as in etcd; passwords are hashed and compared before, and signed tokens made after.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etcd_api::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
    AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleListRequest, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
    InternalAuthenticateRequest, InternalRaftRequest, ResponseHeader,
};
use prost::Message;
use tracing::{info, warn};

use super::caller::{Caller, unix_seconds};
use super::grpc::{Answer, message};
use super::status::{Code, Status};
use crate::apply::{self, Applied};
use crate::auth::token::TokenProvider;
use crate::auth::{AuthError, Reply, simple_token};

/// How often a password is compared again because the rules changed while that went on.
const ATTEMPTS: usize = 8;

fn propose(
    server: &Caller,
    request: InternalRaftRequest,
) -> impl Future<Output = Result<(ResponseHeader, Reply), Status>> + Send + '_ {
    let applied = server.propose(request);
    async { reply_of(server, applied.await?) }
}

fn reply_of(server: &Caller, applied: Applied) -> Result<(ResponseHeader, Reply), Status> {
    match applied.result? {
        apply::Answer::Auth(reply) => Ok((server.header(applied.revision), reply)),
        _ => Err(unfit()),
    }
}

fn unfit() -> Status {
    Status::new(Code::Internal, "etcdserver: the answer does not fit the request")
}

/// For changes, whose answer is a header and nothing else.
async fn change<R: Message>(
    server: &Caller,
    request: InternalRaftRequest,
    response: fn(Option<ResponseHeader>) -> R,
) -> Answer {
    let (header, _) = propose(server, request).await?;
    message(&response(Some(header)))
}

pub async fn enable(server: Caller, request: AuthEnableRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_enable: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthEnableResponse { header }).await
}

pub async fn disable(server: Caller, request: AuthDisableRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_disable: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthDisableResponse { header }).await
}

pub async fn status(server: Caller, request: AuthStatusRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_status: Some(request),
        ..Default::default()
    };
    let (header, Reply::Status { enabled, revision }) = propose(&server, request).await? else {
        return Err(unfit());
    };
    message(&AuthStatusResponse {
        header: Some(header),
        enabled,
        auth_revision: revision,
    })
}

/// The password is not part of the entry. It was the user's only if the rules have not changed since it was compared.
pub async fn authenticate(server: Caller, request: AuthenticateRequest) -> Answer {
    server.linearizable().await?;
    let AuthenticateRequest { name, password } = request;
    for _ in 0..ATTEMPTS {
        let checked = check_password(&server, &name, password.clone())
            .await
            .inspect_err(|error| {
                if *error != AuthError::AuthNotEnabled {
                    warn!(user = %name, error = %error, "invalid authentication was requested");
                }
            })?;
        let request = InternalRaftRequest {
            authenticate: Some(InternalAuthenticateRequest {
                name: name.clone(),
                password: String::new(),
                simple_token: simple_prefix(&server),
            }),
            ..Default::default()
        };
        // Nobody in particular asks for this one: a token that has ended must not stand in the way of a new one.
        let applied = server.propose_as(request.into(), Default::default()).await?;
        let (header, Reply::Authenticated { token, revision }) = reply_of(&server, applied)? else {
            return Err(unfit());
        };
        if revision == checked {
            let token = signed(&server, token, &name, revision).await?;
            let header = Some(header);
            return message(&AuthenticateResponse { header, token });
        }
        info!("revision when password checked became stale; retrying");
    }
    Err(AuthError::AuthOldRevision.into())
}

fn simple_prefix(server: &Caller) -> String {
    match server.state.auth.tokens {
        TokenProvider::Simple(_) => simple_token::prefix(),
        TokenProvider::Jwt(_) | TokenProvider::Nop => String::new(),
    }
}

/// The revision under which the password was the user's.
async fn check_password(server: &Caller, name: &str, password: String) -> Result<u64, AuthError> {
    let auth = &server.state.auth;
    let (revision, stored) = {
        let rules = auth.rules();
        if !rules.enabled {
            return Err(AuthError::AuthNotEnabled);
        }
        let user = rules.user(name);
        if user.is_some_and(|user| user.options.unwrap_or_default().no_password) {
            return Err(AuthError::NoPasswordUser);
        }
        (rules.revision, user.map(|user| user.password.clone()))
    };
    match auth.passwords.verify(stored, password).await? {
        true => Ok(revision),
        false => Err(AuthError::AuthFailed),
    }
}

async fn signed(server: &Caller, simple: String, name: &str, revision: u64) -> Result<String, Status> {
    let (server, name) = (server.clone(), name.to_owned());
    // An RSA signature takes about a millisecond.
    let signing = tokio::task::spawn_blocking(move || match &server.state.auth.tokens {
        TokenProvider::Simple(_) => Ok(simple),
        TokenProvider::Jwt(jwt) => jwt.sign(&name, revision, unix_seconds()),
        TokenProvider::Nop => Err(AuthError::AuthFailed),
    });
    let signed = signing.await;
    Ok(signed.map_err(|error| Status::new(Code::Internal, error.to_string()))??)
}

/// Whoever may not change anything makes nobody hash.
async fn hash(server: &Caller, password: &mut String) -> Result<String, AuthError> {
    server.admin().await?;
    let password = std::mem::take(password);
    let hash = server.state.auth.passwords.hash(password).await?;
    Ok(STANDARD.encode(hash))
}

pub async fn user_add(server: Caller, mut request: AuthUserAddRequest) -> Answer {
    if request.options.unwrap_or_default().no_password {
        request.password.clear();
    } else {
        request.hashed_password = hash(&server, &mut request.password).await?;
    }
    let request = InternalRaftRequest {
        auth_user_add: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthUserAddResponse { header }).await
}

pub async fn user_change_password(server: Caller, mut request: AuthUserChangePasswordRequest) -> Answer {
    if !request.password.is_empty() {
        request.hashed_password = hash(&server, &mut request.password).await?;
    }
    let request = InternalRaftRequest {
        auth_user_change_password: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthUserChangePasswordResponse {
        header,
    })
    .await
}

pub async fn user_get(server: Caller, request: AuthUserGetRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_user_get: Some(request),
        ..Default::default()
    };
    let (header, Reply::User(roles)) = propose(&server, request).await? else {
        return Err(unfit());
    };
    let header = Some(header);
    message(&AuthUserGetResponse { header, roles })
}

pub async fn user_list(server: Caller, request: AuthUserListRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_user_list: Some(request),
        ..Default::default()
    };
    let (header, Reply::Users(users)) = propose(&server, request).await? else {
        return Err(unfit());
    };
    let header = Some(header);
    message(&AuthUserListResponse { header, users })
}

pub async fn user_delete(server: Caller, request: AuthUserDeleteRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_user_delete: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthUserDeleteResponse { header }).await
}

pub async fn user_grant_role(server: Caller, request: AuthUserGrantRoleRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_user_grant_role: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthUserGrantRoleResponse { header }).await
}

pub async fn user_revoke_role(server: Caller, request: AuthUserRevokeRoleRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_user_revoke_role: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthUserRevokeRoleResponse { header }).await
}

pub async fn role_add(server: Caller, request: AuthRoleAddRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_role_add: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthRoleAddResponse { header }).await
}

pub async fn role_get(server: Caller, request: AuthRoleGetRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_role_get: Some(request),
        ..Default::default()
    };
    let (header, Reply::Role(perm)) = propose(&server, request).await? else {
        return Err(unfit());
    };
    let header = Some(header);
    message(&AuthRoleGetResponse { header, perm })
}

pub async fn role_list(server: Caller, request: AuthRoleListRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_role_list: Some(request),
        ..Default::default()
    };
    let (header, Reply::Roles(roles)) = propose(&server, request).await? else {
        return Err(unfit());
    };
    let header = Some(header);
    message(&AuthRoleListResponse { header, roles })
}

pub async fn role_delete(server: Caller, request: AuthRoleDeleteRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_role_delete: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthRoleDeleteResponse { header }).await
}

pub async fn role_grant_permission(server: Caller, request: AuthRoleGrantPermissionRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_role_grant_permission: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthRoleGrantPermissionResponse {
        header,
    })
    .await
}

pub async fn role_revoke_permission(server: Caller, request: AuthRoleRevokePermissionRequest) -> Answer {
    let request = InternalRaftRequest {
        auth_role_revoke_permission: Some(request),
        ..Default::default()
    };
    change(&server, request, |header| AuthRoleRevokePermissionResponse {
        header,
    })
    .await
}
