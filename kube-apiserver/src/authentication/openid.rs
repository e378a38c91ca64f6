//! Issuer discovery: `/.well-known/openid-configuration` and `/openid/v1/jwks`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use component_base::http::{Body, full, text};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::keys::{Algorithm, PublicKey};
use crate::endpoints::seam::{NonResource, RequestContext};

const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
const JWKS_PATH: &str = "/openid/v1/jwks";
const MAX_AGE_SECONDS: u32 = 3600;

/// Documents made once; only an https issuer has them.
pub struct OpenId {
    configuration: Bytes,
    jwks: Bytes,
}

impl OpenId {
    /// `None` when the issuer cannot be an OpenID provider, as the legacy issuer name.
    pub fn new(issuer: &str, jwks_uri: &str, external_address: &str, keys: &[PublicKey]) -> Option<OpenId> {
        if !issuer.starts_with("https://") || issuer.contains(['?', '#']) || keys.is_empty() {
            return None;
        }
        let jwks_uri = if jwks_uri.is_empty() {
            format!("https://{external_address}{JWKS_PATH}")
        } else {
            jwks_uri.to_owned()
        };
        let mut algorithms: Vec<&str> = keys.iter().map(|k| k.algorithm.name()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        // Written out to keep upstream's order of fields.
        let configuration = format!(
            r#"{{"issuer":{},"jwks_uri":{},"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":{}}}"#,
            json!(issuer),
            json!(jwks_uri),
            json!(algorithms)
        );
        let jwks = json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() });
        Some(OpenId {
            configuration: configuration.into(),
            jwks: jwks.to_string().into(),
        })
    }
}

impl NonResource for OpenId {
    fn serve(&self, _: &RequestContext, req: &Request<Incoming>) -> Option<Response<Body>> {
        let (content_type, body) = match req.uri().path() {
            CONFIGURATION_PATH => ("application/json", &self.configuration),
            JWKS_PATH => ("application/jwk-set+json", &self.jwks),
            _ => return None,
        };
        if req.method() != http::Method::GET {
            return Some(text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"));
        }
        let response = Response::builder()
            .header("content-type", content_type)
            .header("cache-control", format!("public, max-age={MAX_AGE_SECONDS}"))
            .body(full(body.clone()));
        // Both headers are fixed text, so the builder cannot fail.
        Some(response.unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "")))
    }

    fn paths(&self) -> Vec<String> {
        vec![CONFIGURATION_PATH.to_owned(), JWKS_PATH.to_owned()]
    }
}

fn jwk(key: &PublicKey) -> Value {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = match key.algorithm {
        Algorithm::Rs256 => {
            let (modulus, exponent) = rsa_numbers(&key.raw).unwrap_or_default();
            json!({ "kty": "RSA", "n": encode(modulus), "e": encode(exponent) })
        }
        Algorithm::Es256 | Algorithm::Es384 => {
            let point = key.raw.get(1..).unwrap_or_default();
            let (x, y) = point.split_at(point.len() / 2);
            let curve = if key.algorithm == Algorithm::Es256 {
                "P-256"
            } else {
                "P-384"
            };
            json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
        }
    };
    jwk["use"] = "sig".into();
    jwk["kid"] = key.id.clone().into();
    jwk["alg"] = key.algorithm.name().into();
    jwk
}

/// Modulus and exponent of a PKCS#1 public key, without sign bytes.
fn rsa_numbers(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    use x509_parser::der_parser::der::{parse_der_integer, parse_der_sequence_defined_g};
    let numbers = parse_der_sequence_defined_g(|content, _| {
        let (rest, modulus) = parse_der_integer(content)?;
        let (rest, exponent) = parse_der_integer(rest)?;
        Ok((rest, (modulus, exponent)))
    })(pkcs1);
    let (_, (modulus, exponent)): (&[u8], _) = numbers.ok()?;
    Some((
        unsigned(modulus.as_slice().ok()?),
        unsigned(exponent.as_slice().ok()?),
    ))
}

fn unsigned(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::new_signer;
    use super::*;

    #[test]
    fn an_https_issuer_publishes_its_keys() {
        let key = new_signer().public;
        let openid = OpenId::new("https://k", "", "10.0.0.1:6443", std::slice::from_ref(&key)).expect("made");
        let config: Value = serde_json::from_slice(&openid.configuration).expect("json");
        assert_eq!(config["jwks_uri"], "https://10.0.0.1:6443/openid/v1/jwks");
        assert_eq!(config["id_token_signing_alg_values_supported"], json!(["ES256"]));
        let jwks: Value = serde_json::from_slice(&openid.jwks).expect("json");
        assert_eq!(jwks["keys"][0]["kid"], key.id);
        let x = URL_SAFE_NO_PAD
            .decode(jwks["keys"][0]["x"].as_str().expect("x"))
            .expect("base64");
        assert_eq!(x, key.raw[1..33]);
    }

    #[test]
    fn other_issuers_publish_nothing() {
        assert!(OpenId::new("kubernetes/serviceaccount", "", "a", &[new_signer().public]).is_none());
    }

    #[test]
    fn rsa_keys_are_two_numbers() {
        let pkcs1 = [0x30, 0x08, 0x02, 0x02, 0x00, 0x81, 0x02, 0x02, 0x01, 0x01];
        assert_eq!(rsa_numbers(&pkcs1), Some((&[0x81u8][..], &[1u8, 1][..])));
    }
}
