//! Client certificates: the common name is the user, the organizations are the groups.

use component_base::serve::ConnInfo;
use sha2::{Digest, Sha256};

use super::Authenticated;
use crate::user::UserInfo;

const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// `None` when the client showed no certificate. One that did not verify is an error: the handshake let it
/// pass only so that the refusal can be an answer.
pub fn authenticate(conn: &ConnInfo) -> Option<Result<Authenticated, String>> {
    let cert = conn.client_cert.as_ref()?;
    if let Err(reason) = &cert.verified {
        return Some(Err(format!("x509: {reason}")));
    }
    if cert.common_name.is_empty() {
        return None;
    }
    let mut user = UserInfo {
        name: cert.common_name.clone(),
        groups: cert.organizations.clone(),
        ..Default::default()
    };
    if let Some(leaf) = cert.chain.first() {
        user.extra.insert(
            CREDENTIAL_ID.to_owned(),
            vec![format!("X509SHA256={}", hex(&Sha256::digest(leaf)))],
        );
    }
    Some(Ok(Authenticated::new(user)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
