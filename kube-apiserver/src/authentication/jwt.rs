//! JSON web tokens in compact form: make, take apart, check the signature. Claims are the caller's.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::keys::{PublicKey, Signer};

#[derive(Debug, Default, Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

/// A token taken apart; nothing in it is believed before `verify`.
pub struct Unverified<'a> {
    header: Header,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

pub fn sign(signer: &Signer, claims: &Value) -> Result<String, String> {
    let header = serde_json::json!({ "alg": signer.public.algorithm.name(), "kid": signer.public.id });
    let mut token = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = signer.sign(token.as_bytes())?;
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature));
    Ok(token)
}

impl<'a> Unverified<'a> {
    /// `None`: this is not a JWT at all.
    pub fn parse(token: &'a str) -> Option<Unverified<'a>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        Some(Unverified {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            signed,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.payload).map_err(|e| format!("token claims: {e}"))
    }

    /// The algorithm is the key's, never the token's: a header that says otherwise is refused.
    pub fn verify(&self, keys: &[PublicKey]) -> Result<(), String> {
        let mut candidates = keys
            .iter()
            .filter(|k| self.header.kid.is_empty() || k.id == self.header.kid)
            .peekable();
        if candidates.peek().is_none() {
            return Err("invalid signature, no keys found".to_owned());
        }
        let verifies = |key: &PublicKey| {
            key.algorithm.name() == self.header.alg && key.verify(self.signed.as_bytes(), &self.signature)
        };
        if candidates.any(verifies) {
            Ok(())
        } else {
            Err("go-jose/go-jose: error in cryptographic primitive".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::new_signer;
    use super::*;

    #[test]
    fn a_signed_token_verifies_with_its_key_only() {
        let (signer, other) = (new_signer(), new_signer());
        let token = sign(&signer, &serde_json::json!({"sub": "a"})).expect("signs");
        let parsed = Unverified::parse(&token).expect("is a jwt");
        assert_eq!(parsed.claims::<Value>().expect("claims")["sub"], "a");
        assert!(
            parsed
                .verify(&[other.public.clone(), signer.public.clone()])
                .is_ok()
        );
        assert_eq!(
            parsed.verify(&[other.public]),
            Err("invalid signature, no keys found".to_owned())
        );
    }

    #[test]
    fn changed_claims_and_foreign_algorithms_are_refused() {
        let signer = new_signer();
        let token = sign(&signer, &serde_json::json!({"sub": "a"})).expect("signs");
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!(
            "{}.{}.{}",
            parts[0],
            URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#),
            parts[2]
        );
        assert!(
            Unverified::parse(&forged)
                .expect("is a jwt")
                .verify(std::slice::from_ref(&signer.public))
                .is_err()
        );
        let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), parts[1]);
        assert!(
            Unverified::parse(&none)
                .expect("is a jwt")
                .verify(&[signer.public])
                .is_err()
        );
    }

    #[test]
    fn other_tokens_are_not_mistaken_for_jwts() {
        for token in ["abc", "a.b", "a.b.c", "a.b.c.d", "abcdef.0123456789abcdef"] {
            assert!(Unverified::parse(token).is_none(), "{token}");
        }
    }
}
