//! Tokens: asked for when there is a user with a password, and again when the server no longer takes the old one.

use etcd_api::etcdserverpb::AuthenticateRequest;
use etcd_api::etcdserverpb::auth_client::AuthClient;
use tonic::Status;

use super::{Client, Context, Error, Policy};

const USER_EMPTY: &str = "etcdserver: user name is empty";
const INVALID_AUTH_TOKEN: &str = "etcdserver: invalid auth token";
const AUTH_OLD_REVISION: &str = "etcdserver: revision of auth store is old";

impl Client {
    /// A server without authentication is no error.
    pub(super) async fn authenticate(&self, context: &Context) -> Result<(), Error> {
        let Some(request) = self.credentials() else {
            return Ok(());
        };
        let path = "/etcdserverpb.Auth/Authenticate";
        let send = |channel, request| async move { AuthClient::new(channel).authenticate(request).await };
        // Boxed: a call may refresh the token, which is a call.
        let answer = Box::pin(self.call(context, Policy::NonRepeatable, path, request, send)).await;
        match answer {
            Ok(answer) => *self.0.token.lock() = Some(answer.token),
            Err(error) if error.is_auth_not_enabled() => *self.0.token.lock() = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn credentials(&self) -> Option<AuthenticateRequest> {
        let auth = self.0.config.auth.as_ref()?;
        let usable = auth.token.is_none() && !auth.username.is_empty() && !auth.password.is_empty();
        usable.then(|| AuthenticateRequest {
            name: auth.username.clone(),
            password: auth.password.clone(),
        })
    }

    /// Whether the call is worth another attempt.
    pub(super) async fn refresh_token(&self, context: &Context, status: &Status) -> Result<bool, Error> {
        let stale = match status.message() {
            USER_EMPTY => self.credentials().is_some(),
            INVALID_AUTH_TOKEN | AUTH_OLD_REVISION => true,
            _ => false,
        };
        if stale && self.credentials().is_some() {
            self.authenticate(context).await?;
            return Ok(true);
        }
        // Users of certificates have no token to refresh; the next attempt carries the new revision.
        Ok(stale && status.message() == AUTH_OLD_REVISION)
    }
}
