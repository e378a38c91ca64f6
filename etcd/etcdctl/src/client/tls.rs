//! TLS from the flags, refused with upstream's words where it has some.

use std::sync::Arc;

use component_base::tls::{ClientTls, Pem};
use rustls::ClientConfig;

use super::connect::errno_text;
use super::{Error, Secure};

/// For one protocol of ALPN. None when neither certificates nor TLS were asked for.
pub fn load(secure: &Secure, protocol: &[u8]) -> Result<Option<Arc<ClientConfig>>, Error> {
    let given = [&secure.cert, &secure.key, &secure.cacert, &secure.server_name];
    if given.iter().all(|text| text.is_empty()) && secure.insecure_transport && !secure.insecure_skip_verify {
        return Ok(None);
    }
    if secure.cert.is_empty() != secure.key.is_empty() {
        return Err(Error::text(format!(
            "KeyFile and CertFile must both be present[key: {}, cert: {}]",
            secure.key, secure.cert
        )));
    }
    for path in [&secure.cert, &secure.key, &secure.cacert] {
        readable(path)?;
    }
    build(secure, protocol).map(Some)
}

/// For `https://` endpoints when no flag says anything about TLS: the system's authorities.
pub fn system(protocol: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    build(&Secure::default(), protocol)
}

fn build(secure: &Secure, protocol: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    let file = |path: &String| Pem::File(path.into());
    let tls = ClientTls {
        ca: Some(&secure.cacert).filter(|path| !path.is_empty()).map(file),
        cert: Some(&secure.cert)
            .filter(|path| !path.is_empty())
            .map(|cert| (file(cert), file(&secure.key))),
        insecure: secure.insecure_skip_verify,
        server_name: Some(secure.server_name.clone()).filter(|name| !name.is_empty()),
        alpn: vec![protocol.to_vec()],
    };
    let loaded = tls.load().map_err(|error| Error::text(format!("{error:#}")))?;
    Ok(loaded.current())
}

fn readable(path: &str) -> Result<(), Error> {
    if path.is_empty() {
        return Ok(());
    }
    let read = std::fs::read(path).map(drop);
    read.map_err(|error| Error::text(format!("open {path}: {}", errno_text(&error))))
}
