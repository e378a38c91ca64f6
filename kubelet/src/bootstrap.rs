//! The first client certificate: with the bootstrap kubeconfig's identity a certificate is asked for, waited for, and a kubeconfig written that uses it.
//! Later, with `rotateCertificates`, the next one is asked for before it expires; the files change and every connection follows them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Api, Client};
use component_base::drain::Drain;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::server::write_private;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const CURRENT: &str = "kubelet-client-current.pem";
/// An approver may be a human.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const POLL: Duration = Duration::from_secs(1);
/// The next certificate is asked for when this share of the present one's life is over.
const ROTATE_AT_PERCENT: i64 = 80;
const ROTATION_CHECK: Duration = Duration::from_secs(60);

pub struct Bootstrap<'a> {
    pub bootstrap_kubeconfig: &'a Path,
    pub kubeconfig: &'a Path,
    pub cert_dir: &'a Path,
    pub node_name: &'a str,
}

impl Bootstrap<'_> {
    /// Nothing to do when there is a kubeconfig already.
    pub async fn run(&self) -> Result<()> {
        if self.kubeconfig.exists() {
            return Ok(());
        }
        let rest = client::kubeconfig::load(self.bootstrap_kubeconfig)
            .map_err(|e| anyhow::anyhow!("--bootstrap-kubeconfig: {e}"))?;
        let client = Client::new(rest, "kubelet-bootstrap")
            .map_err(|e| anyhow::anyhow!("--bootstrap-kubeconfig: {e}"))?;
        tracing::info!(
            node = self.node_name,
            "Requesting a client certificate with the bootstrap credentials"
        );
        let pem = tokio::time::timeout(PATIENCE, request(&client, self.node_name)).await.map_err(|_| {
            anyhow::anyhow!("no client certificate was issued within 15 minutes: approve the request (`kubectl get csr`, `kubectl certificate approve <name>`)")
        })??;
        let current = store(self.cert_dir, &pem)?;
        self.write_kubeconfig(&current)
    }

    fn write_kubeconfig(&self, certificate: &Path) -> Result<()> {
        let text = std::fs::read_to_string(self.bootstrap_kubeconfig).context("--bootstrap-kubeconfig")?;
        let bootstrap = component_base::config::yaml_to_json(&text)?;
        let cluster = bootstrap
            .pointer("/clusters/0/cluster")
            .cloned()
            .context("--bootstrap-kubeconfig has no cluster")?;
        let cluster = with_absolute_ca(cluster, self.bootstrap_kubeconfig);
        let shown = certificate.display().to_string();
        let made = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "default-context", "preferences": {},
            "clusters": [{"name": "default-cluster", "cluster": cluster}],
            "contexts": [{"name": "default-context", "context": {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"}}],
            "users": [{"name": "default-auth", "user": {"client-certificate": shown, "client-key": shown}}],
        });
        write_private(self.kubeconfig, serde_json::to_string_pretty(&made)?.as_bytes())
    }
}

fn with_absolute_ca(mut cluster: serde_json::Value, file: &Path) -> serde_json::Value {
    let relative = cluster
        .get("certificate-authority")
        .and_then(|c| c.as_str())
        .filter(|c| !c.starts_with('/'));
    if let Some(path) = relative.map(|c| file.parent().unwrap_or(Path::new("/")).join(c)) {
        cluster["certificate-authority"] = path.display().to_string().into();
    }
    cluster
}

/// Asks and waits until someone signed or refused. Certificate and key in one PEM, as upstream keeps them.
async fn request(client: &Client, node_name: &str) -> Result<String> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:nodes");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("system:node:{node_name}"));
    let csr = params.serialize_request(&key)?.pem()?;
    let api: Api<CertificateSigningRequest> = client.all();
    let made = api
        .create(&CertificateSigningRequest {
            metadata: ObjectMeta {
                generate_name: Some("csr-".into()),
                ..Default::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(csr.into_bytes()),
                signer_name: SIGNER.into(),
                usages: Some(vec!["digital signature".into(), "client auth".into()]),
                ..Default::default()
            },
            ..Default::default()
        })
        .await
        .map_err(|e| anyhow::anyhow!("could not create a certificate signing request: {e}"))?;
    let name = made.metadata.name.unwrap_or_default();
    loop {
        let now = api
            .get(&name)
            .await
            .map_err(|e| anyhow::anyhow!("certificate signing request {name}: {e}"))?;
        let status = now.status.unwrap_or_default();
        if let Some(bad) = status
            .conditions
            .iter()
            .flatten()
            .find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"))
        {
            bail!(
                "certificate signing request {name} was {}: {}",
                bad.type_.to_lowercase(),
                bad.message.clone().unwrap_or_default()
            );
        }
        if let Some(certificate) = status.certificate.filter(|c| !c.0.is_empty()) {
            return Ok(format!(
                "{}{}",
                String::from_utf8_lossy(&certificate.0),
                key.serialize_pem()
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// `kubelet-client-<time>.pem`, and `kubelet-client-current.pem` pointing to it: the swap is one rename.
fn store(dir: &Path, pem: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("--cert-dir {}", dir.display()))?;
    let stamp = jiff::Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S");
    let file = dir.join(format!("kubelet-client-{stamp}.pem"));
    write_private(&file, pem.as_bytes())?;
    let (current, next) = (dir.join(CURRENT), dir.join(format!("{CURRENT}.next")));
    // Left by a crash between the two steps.
    let _ = std::fs::remove_file(&next);
    std::os::unix::fs::symlink(&file, &next)?;
    std::fs::rename(&next, &current)?;
    Ok(current)
}

/// Runs for ever; does nothing for certificates that the kubelet did not ask for itself.
pub async fn rotate(client: Client, cert_dir: PathBuf, node_name: String, drain: Drain) {
    let current = cert_dir.join(CURRENT);
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROTATION_CHECK) => {}
            () = drain.signaled() => return,
        }
        let Ok(pem) = std::fs::read_to_string(&current) else {
            continue;
        };
        let Some((begin, end)) = validity(&pem) else {
            continue;
        };
        let now = jiff::Timestamp::now().as_second();
        crate::metrics::CLIENT_CERT_TTL.with(&[]).set((end - now) as f64);
        if (now - begin) * 100 < (end - begin) * ROTATE_AT_PERCENT {
            continue;
        }
        let renewed = async { store(&cert_dir, &request(&client, &node_name).await?) };
        match tokio::time::timeout(PATIENCE, renewed).await {
            Ok(Ok(_)) => tracing::info!("Rotated the client certificate"),
            Ok(Err(error)) => {
                crate::metrics::CLIENT_RENEW_ERRORS.with(&[]).inc();
                tracing::error!(%error, "Client certificate rotation failed");
            }
            Err(_) => tracing::error!("Client certificate rotation: the request was not signed in time"),
        }
    }
}

/// Seconds of Unix time.
fn validity(pem: &str) -> Option<(i64, i64)> {
    let body = pem
        .split("-----BEGIN CERTIFICATE-----")
        .nth(1)?
        .split("-----END")
        .next()?;
    let der = STANDARD
        .decode(body.split_whitespace().collect::<String>())
        .ok()?;
    let chain = [rustls_pki_types::CertificateDer::from(der.clone())];
    let end = component_base::tls::ClientIdentity::parse(&chain)?
        .not_after
        .unix_timestamp();
    Some((not_before(&der)?, end))
}

/// The first time in a certificate is its notBefore: UTCTime (tag 0x17) `YYMMDDhhmmssZ` or GeneralizedTime (0x18).
fn not_before(der: &[u8]) -> Option<i64> {
    let at = der.windows(2).position(|w| w == [0x17, 13] || w == [0x18, 15])?;
    let length = usize::from(der[at + 1]);
    let text = std::str::from_utf8(der.get(at + 2..at + 2 + length)?).ok()?;
    let full = if length == 13 {
        format!("20{text}")
    } else {
        text.to_string()
    };
    let digits: Vec<i64> = [(0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14)]
        .iter()
        .filter_map(|(a, b)| full.get(*a..*b)?.parse().ok())
        .collect();
    let [y, mo, d, h, mi, s] = digits.as_slice() else {
        return None;
    };
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
        .parse::<jiff::Timestamp>()
        .ok()
        .map(|t| t.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_read_from_the_certificate() {
        let mut params = rcgen::CertificateParams::new(vec!["n".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2027, 1, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let (begin, end) = validity(&pem).unwrap();
        assert_eq!(
            jiff::Timestamp::from_second(begin).unwrap().to_string(),
            "2026-01-02T00:00:00Z"
        );
        assert_eq!(end - begin, 365 * 24 * 3600);
    }

    #[test]
    fn the_current_certificate_is_swapped_by_one_rename() {
        let tmp = tempfile::tempdir().unwrap();
        let current = store(tmp.path(), "one").unwrap();
        assert_eq!(std::fs::read_to_string(&current).unwrap(), "one");
        store(tmp.path(), "two").unwrap();
        assert_eq!(std::fs::read_to_string(&current).unwrap(), "two");
    }
}
