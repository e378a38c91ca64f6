//! Endpoints from DNS SRV records: `_etcd-client-ssl._tcp.DOMAIN` and `_etcd-client._tcp.DOMAIN`.

use component_base::dns::{LookupError, Srv, lookup_srv};

use super::Error;

/// URLs of both services, TLS first. An error when neither has records.
pub async fn endpoints(domain: &str, service_name: &str) -> Result<Vec<String>, Error> {
    let secure = lookup_srv(&service("etcd-client-ssl", service_name), domain).await;
    let plain = lookup_srv(&service("etcd-client", service_name), domain).await;
    if let (Err(secure), Err(plain)) = (&secure, &plain) {
        return Err(Error::text(format!("dns lookup errors: {secure} and {plain}")));
    }
    let urls = |scheme: &'static str, found: Result<Vec<Srv>, LookupError>| {
        let found = found.unwrap_or_default();
        found
            .into_iter()
            .map(move |target| format!("{scheme}://{}:{}", target.host, target.port))
    };
    Ok(urls("https", secure).chain(urls("http", plain)).collect())
}

fn service(service: &str, name: &str) -> String {
    if name.is_empty() {
        service.to_owned()
    } else {
        format!("{service}-{name}")
    }
}
