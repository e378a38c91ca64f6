//! Acting as a service account, with tokens that the API server issues and that are renewed before they expire.

use crate::Client;
use crate::error::Error;
use http::HeaderValue;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const LIFETIME: Duration = Duration::from_secs(3600);
/// A token is renewed when this share of its life is over.
const RENEW_AT: f64 = 0.8;
/// Waits for a new account to be seen.
const SETTLE: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// The identity of one service account; made by [`Client::as_service_account`].
pub(crate) struct ServiceAccountIdentity {
    /// May create service accounts and their tokens.
    issuer: Client,
    namespace: String,
    name: String,
    current: Mutex<Option<Token>>,
}

struct Token {
    header: HeaderValue,
    renew: Instant,
}

impl ServiceAccountIdentity {
    pub fn new(issuer: Client, namespace: &str, name: &str) -> Self {
        ServiceAccountIdentity {
            issuer,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            current: Mutex::default(),
        }
    }

    /// Whoever comes while a token is being fetched waits for that one.
    pub async fn authorization(&self) -> Result<HeaderValue, Error> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref().filter(|t| Instant::now() < t.renew) {
            return Ok(token.header.clone());
        }
        let asked = Instant::now();
        let header = self.fetch().await?;
        *current = Some(Token {
            header: header.clone(),
            renew: asked + LIFETIME.mul_f64(RENEW_AT),
        });
        Ok(header)
    }

    /// The server did not take the token: its account was made anew, or the key changed.
    pub async fn forget(&self) {
        *self.current.lock().await = None;
    }

    async fn fetch(&self) -> Result<HeaderValue, Error> {
        let answer = match self.request().await {
            Err(error) if error.is_not_found() => {
                self.create().await?;
                self.request_of_new().await?
            }
            outcome => outcome?,
        };
        let token = answer.status.and_then(|s| s.token).unwrap_or_default();
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|e| Error::transport(format!("token of {}", self.name), e))?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// The server may read accounts from a cache that has not seen the new one yet.
    async fn request_of_new(&self) -> Result<TokenRequest, Error> {
        for delay in SETTLE {
            match self.request().await {
                Err(error) if error.is_not_found() => tokio::time::sleep(delay).await,
                outcome => return outcome,
            }
        }
        self.request().await
    }

    async fn request(&self) -> Result<TokenRequest, Error> {
        let spec = TokenRequestSpec {
            expiration_seconds: Some(LIFETIME.as_secs() as i64),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec: Some(spec),
            ..TokenRequest::default()
        };
        self.issuer
            .namespaced::<ServiceAccount>(&self.namespace)
            .create_subresource(&self.name, "token", &request)
            .await
    }

    async fn create(&self) -> Result<(), Error> {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            ..ObjectMeta::default()
        };
        let account = ServiceAccount {
            metadata,
            ..ServiceAccount::default()
        };
        match self.issuer.namespaced(&self.namespace).create(&account).await {
            Err(error) if error.is_already_exists() => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}
