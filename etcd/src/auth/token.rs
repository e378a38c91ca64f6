//! `--auth-token`: how a user who gave a password once is recognised again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::jwt::Jwt;
use super::simple_token::SimpleTokens;

pub const SIMPLE: &str = "simple";
const JWT: &str = "jwt";

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("--auth-token: auth: invalid auth options: {0:?} is not of the form type,name=value,...")]
    Malformed(String),
    #[error("--auth-token: auth: invalid auth options: {0:?} is given twice")]
    Twice(String),
    #[error("--auth-token: auth: invalid auth options: unknown type {0:?}; use \"simple\" or \"jwt\"")]
    UnknownType(String),
    #[error("--auth-token: ttl: {0}")]
    Ttl(String),
    #[error(
        "--auth-token: auth: invalid auth signature method {0:?}; use sign-method=RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, HS256, HS384, HS512 or EdDSA"
    )]
    InvalidMethod(String),
    #[error("--auth-token: auth: missing key data: {0}")]
    MissingKey(&'static str),
    #[error("--auth-token: auth: public and private keys don't match")]
    KeyMismatch,
    #[error("--auth-token: {name}={}: {what}", path.display())]
    Key {
        name: &'static str,
        path: PathBuf,
        what: String,
    },
}

pub enum TokenProvider {
    Simple(SimpleTokens),
    Jwt(Box<Jwt>),
    /// An empty flag: certificates only.
    Nop,
}

impl TokenProvider {
    pub fn from_flag(flag: &str, simple_ttl: Duration) -> Result<TokenProvider, TokenError> {
        let (kind, options) = split(flag)?;
        match kind {
            SIMPLE => Ok(TokenProvider::Simple(SimpleTokens::new(simple_ttl))),
            JWT => Jwt::from_options(&options).map(|jwt| TokenProvider::Jwt(Box::new(jwt))),
            "" => Ok(TokenProvider::Nop),
            other => Err(TokenError::UnknownType(other.to_owned())),
        }
    }

    pub fn invalidate_user(&self, user: &str) {
        if let TokenProvider::Simple(tokens) = self {
            tokens.invalidate_user(user);
        }
    }

    pub fn clear(&self) {
        if let TokenProvider::Simple(tokens) = self {
            tokens.clear();
        }
    }
}

pub type TokenOptions<'a> = BTreeMap<&'a str, &'a str>;

fn split(flag: &str) -> Result<(&str, TokenOptions<'_>), TokenError> {
    let mut parts = flag.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut options = BTreeMap::new();
    for part in parts {
        let (name, value) = part
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or_else(|| TokenError::Malformed(flag.to_owned()))?;
        if options.insert(name, value).is_some() {
            return Err(TokenError::Twice(name.to_owned()));
        }
    }
    Ok((kind, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(flag: &str) -> String {
        match TokenProvider::from_flag(flag, Duration::ZERO) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_flag_is_read_and_its_mistakes_are_named() {
        for (flag, expected) in [
            ("simple", "accepted"),
            ("", "accepted"),
            ("opaque", "unknown type \"opaque\""),
            ("jwt,sign-method", "is not of the form"),
            ("jwt,a=b=c", "is not of the form"),
            ("jwt,ttl=1m,ttl=2m", "\"ttl\" is given twice"),
            ("jwt,ttl=soon,sign-method=HS256", "ttl:"),
            ("jwt", "invalid auth signature method \"\""),
            ("jwt,sign-method=ES512", "invalid auth signature method \"ES512\""),
            ("jwt,sign-method=RS256", "missing key data"),
            ("jwt,sign-method=HS256", "missing key data"),
            ("jwt,sign-method=RS256,priv-key=/nowhere", "priv-key=/nowhere: "),
        ] {
            let found = refusal(flag);
            assert!(found.contains(expected), "{flag}: {found}");
        }
    }
}
