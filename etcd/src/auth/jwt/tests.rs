use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::auth::token::TokenProvider;

const NOW: u64 = 1_700_000_000;

/// Keys as an operator makes them.
struct Keys(TempDir);

impl Keys {
    fn new() -> Keys {
        Keys(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl")
            .current_dir(self.0.path())
            .args(args.split(' '))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "openssl {args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn jwt(&self, flag: &str) -> Jwt {
        let flag = flag.replace('@', &format!("{}/", self.0.path().display()));
        match TokenProvider::from_flag(&flag, Duration::ZERO) {
            Ok(TokenProvider::Jwt(jwt)) => *jwt,
            Ok(_) => panic!("not a JWT: {flag}"),
            Err(error) => panic!("{flag}: {error}"),
        }
    }
}

fn info(username: &str, revision: u64) -> Option<AuthInfo> {
    Some(AuthInfo {
        username: username.to_owned(),
        revision,
    })
}

#[test]
fn every_method_signs_what_the_public_key_verifies() {
    let keys = Keys::new();
    keys.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key");
    keys.openssl("rsa -in rsa.key -traditional -out rsa1.key");
    keys.openssl("ecparam -name prime256v1 -genkey -noout -out p256.key");
    keys.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.key");
    keys.openssl("genpkey -algorithm ed25519 -out ed.key");
    keys.openssl("req -x509 -new -key rsa.key -subj /CN=x -days 2 -out rsa.crt");
    for name in ["rsa", "p256", "p384", "ed"] {
        keys.openssl(&format!("pkey -in {name}.key -pubout -out {name}.pub"));
    }
    for (method, private, public) in [
        ("RS256", "rsa.key", "rsa.pub"),
        ("RS384", "rsa1.key", "rsa.pub"),
        ("RS512", "rsa.key", "rsa.crt"),
        ("PS256", "rsa.key", "rsa.pub"),
        ("PS384", "rsa.key", "rsa.pub"),
        ("PS512", "rsa.key", "rsa.pub"),
        ("ES256", "p256.key", "p256.pub"),
        ("ES384", "p384.key", "p384.pub"),
        ("EdDSA", "ed.key", "ed.pub"),
    ] {
        let signer = keys.jwt(&format!(
            "jwt,sign-method={method},priv-key=@{private},pub-key=@{public},ttl=1m"
        ));
        let verifier = keys.jwt(&format!("jwt,sign-method={method},pub-key=@{public}"));
        let token = signer.sign("alice", 7, NOW).unwrap();
        assert_eq!(verifier.verify(&token, NOW + 59), info("alice", 7), "{method}");
        assert_eq!(signer.verify(&token, NOW), info("alice", 7), "{method}");
        assert_eq!(verifier.verify(&token, NOW + 60), None, "{method} has expired");
        assert_eq!(verifier.sign("alice", 7, NOW), Err(AuthError::VerifyOnly));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = signer.sign("root", 7, NOW).unwrap();
        let (forged, _) = other.rsplit_once('.').unwrap();
        assert_eq!(
            verifier.verify(&format!("{forged}.{signature}"), NOW),
            None,
            "{method}"
        );
        assert_eq!(verifier.verify(signed, NOW), None, "{method}");
    }
    keys.openssl("genpkey -algorithm ed25519 -out other.key");
    let mismatch = format!(
        "jwt,sign-method=EdDSA,priv-key={},pub-key={}",
        keys.path("other.key"),
        keys.path("ed.pub")
    );
    assert!(matches!(
        TokenProvider::from_flag(&mismatch, Duration::ZERO),
        Err(TokenError::KeyMismatch)
    ));
    let wrong_kind = format!("jwt,sign-method=RS256,priv-key={}", keys.path("ed.key"));
    assert!(matches!(
        TokenProvider::from_flag(&wrong_kind, Duration::ZERO),
        Err(TokenError::Key { name: "priv-key", .. })
    ));
}

#[test]
fn a_token_neither_chooses_its_method_nor_goes_without_claims() {
    let keys = Keys::new();
    std::fs::write(keys.path("secret"), "top secret").unwrap();
    let jwt = keys.jwt("jwt,sign-method=HS256,priv-key=@secret");
    let token = jwt.sign("bob", 3, NOW).unwrap();
    assert_eq!(jwt.verify(&token, NOW), info("bob", 3));
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let sealed = |header: &str, claims: &str| {
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = jwt.key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let good = r#"{"username":"root","revision":3}"#;
    assert_eq!(
        jwt.verify(&sealed(r#"{"alg":"HS256"}"#, good), NOW),
        info("root", 3)
    );
    for (header, claims) in [
        (r#"{"alg":"none"}"#, good),
        (r#"{"alg":"HS384"}"#, good),
        (r#"{"alg":"HS256"}"#, r#"{"username":"root"}"#),
        (r#"{"alg":"HS256"}"#, r#"{"username":1,"revision":3}"#),
        (
            r#"{"alg":"HS256"}"#,
            r#"{"username":"root","revision":3,"nbf":9999999999}"#,
        ),
    ] {
        assert_eq!(
            jwt.verify(&sealed(header, claims), NOW),
            None,
            "{header} {claims}"
        );
    }
    let unsigned = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(good));
    for bad in ["", ".", "..", "a.b.c", unsigned.as_str()] {
        assert_eq!(jwt.verify(bad, NOW), None, "{bad:?}");
    }
    assert_eq!(jwt.verify(&"x".repeat(1 << 20), NOW), None);
}
