//! `pki renew`: a new certificate for the key that is there, with the subject and the names it had.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::flags::{FlagSet, Flags};
use component_base::tls::{self, Certificate, Pem};

use crate::authority::{Authority, Request};
use crate::key::Key;
use crate::kubeconfig::Credentials;
use crate::profiles::{self, AltNames, KUBECONFIGS, PROFILES};
use crate::settings::{self, read_directories};
use crate::store;

pub fn flags() -> FlagSet {
    settings::directories(FlagSet::plain(
        "pki renew",
        "Renews certificates: all, or those named. Daemons read the files again by themselves.",
    ))
    .duration(
        "validity",
        "8760h0m0s",
        "How long the new certificates are valid.",
    )
    .with_arguments()
}

pub fn run(flags: &Flags) -> Result<bool> {
    let (cert_dir, kubeconfig_dir, kubelet_dir) = read_directories(flags);
    let validity = flags.duration("validity");
    let wanted = |names: &[&str]| {
        let given = flags.arguments();
        given.is_empty()
            || given
                .iter()
                .any(|name| name == "all" || names.contains(&name.as_str()))
    };
    let mut seen = 0;
    for row in PROFILES.iter().filter(|row| wanted(&[row.name])) {
        let home = if row.home == profiles::Home::KubeletDir {
            &kubelet_dir
        } else {
            &cert_dir
        };
        let base = home.join(row.path);
        seen += 1;
        if store::crt(&base).exists() {
            renew_files(&base, &load(row.authority, &cert_dir)?, validity)?;
            println!("{}: renewed", store::crt(&base).display());
        }
    }
    for row in KUBECONFIGS.iter().filter(|row| wanted(&[row.name, row.file])) {
        let path = kubeconfig_dir.join(row.file);
        seen += 1;
        if path.exists() {
            renew_kubeconfig(&path, &load("ca", &cert_dir)?, validity)?;
            println!("{}: renewed", path.display());
        }
    }
    if seen == 0 {
        bail!(
            "there is no certificate {}; pki explain lists them",
            flags.arguments().join(", ")
        );
    }
    Ok(true)
}

fn load(name: &str, cert_dir: &Path) -> Result<Authority> {
    Authority::load(
        profiles::authority(name).with_context(|| format!("no authority {name}"))?,
        cert_dir,
    )
}

fn renew_files(base: &Path, authority: &Authority, validity: Duration) -> Result<()> {
    let crt = store::crt(base);
    let key = Key::load(&store::key(base))?;
    let pem = reissue(&Pem::File(crt.clone()), &key, authority, validity)
        .with_context(|| crt.display().to_string())?;
    store::replace(&crt, &pem, store::PUBLIC)
}

fn renew_kubeconfig(path: &Path, authority: &Authority, validity: Duration) -> Result<()> {
    let credentials = Credentials::read(path)?;
    let key = Key::from_pem(&credentials.key)?;
    let cert = reissue(
        &Pem::Data(credentials.cert.into_bytes()),
        &key,
        authority,
        validity,
    )
    .with_context(|| path.display().to_string())?;
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = Credentials::with_cert(&text, &cert).with_context(|| path.display().to_string())?;
    store::replace(path, &text, store::SECRET)
}

fn reissue(old: &Pem, key: &Key, authority: &Authority, validity: Duration) -> Result<String> {
    let chain = tls::load_certs(old)?;
    let cert = Certificate::parse(&chain[0])?;
    if key.spki() != cert.spki() {
        bail!("the key does not belong to the certificate");
    }
    let organizations = cert.organizations();
    if organizations.len() > 1 {
        bail!(
            "it names {} organizations; issue it again with openssl",
            organizations.len()
        );
    }
    let (server, client) = usages(&cert);
    let names = AltNames {
        dns: cert.dns_names(),
        addresses: cert.ip_addresses(),
    };
    authority.issue(
        &Request {
            common_name: &cert.common_name(),
            organizations: &organizations,
            names: &names,
            server,
            client,
            validity,
        },
        key,
    )
}

/// A certificate without extended key usage (version 1) was good for both.
pub fn usages(cert: &Certificate<'_>) -> (bool, bool) {
    match cert.parsed.extended_key_usage() {
        Ok(Some(usage)) => (
            usage.value.server_auth || usage.value.any,
            usage.value.client_auth || usage.value.any,
        ),
        _ => (true, true),
    }
}
