//! `pki verify`: why a peer would refuse a certificate, key, CA or kubeconfig, one line for each file.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use component_base::flags::{FlagSet, Flags};
use component_base::tls::{self, CertPool, Certificate, Pem, Usage};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::key::Key;
use crate::kubeconfig::Credentials;
use crate::profiles::{AUTHORITIES, PROFILES, Profile};
use crate::renew::usages;
use crate::store;

/// Group or others may read a secret.
const READABLE_BY_OTHERS: u32 = 0o077;
const WRITABLE_BY_OTHERS: u32 = 0o022;

pub fn flags() -> FlagSet {
    FlagSet::plain(
        "pki verify",
        "Says why a peer would refuse the files. Exit code 1 when one would be.",
    )
    .string(
        "ca",
        "",
        "The CA file of the peer (default: the authority that kubeadm's layout has for the file).",
    )
    .string(
        "key",
        "",
        "The key of the certificate (default: the .key beside it).",
    )
    .string(
        "host",
        "",
        "A name or address that clients will use for the server.",
    )
    .string(
        "usage",
        "",
        "server or client (default: what the certificate says).",
    )
    .with_arguments()
}

pub fn run(flags: &Flags) -> Result<bool> {
    if flags.arguments().is_empty() {
        bail!("which file?");
    }
    let mut good = true;
    for file in flags.arguments() {
        match examine(Path::new(file), flags) {
            Ok(line) => println!("{file}: ok: {line}"),
            Err(error) => {
                good = false;
                println!("{file}: refused: {}", format!("{error:#}").replace('\n', " "));
            }
        }
    }
    Ok(good)
}

fn examine(path: &Path, flags: &Flags) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("cannot be read: {error}"))?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return certificate(path, flags);
    }
    if text.contains("PRIVATE KEY-----") {
        let key = Key::load(path)?;
        modes(path, READABLE_BY_OTHERS, "0600")?;
        return private_key(path, &key);
    }
    if text.contains("-----BEGIN PUBLIC KEY-----") {
        return public_key(path, &text);
    }
    if text.contains("kind: Config") || text.contains("\"kind\"") {
        modes(path, READABLE_BY_OTHERS, "0600")?;
        return kubeconfig(path, flags);
    }
    bail!("neither PEM nor a kubeconfig")
}

fn modes(path: &Path, forbidden: u32, wanted: &str) -> Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o7777;
    match mode & forbidden {
        0 => Ok(()),
        _ => bail!(
            "mode {mode:04o} lets others at it, want {wanted}: chmod {} {}",
            &wanted[1..],
            path.display()
        ),
    }
}

fn certificate(path: &Path, flags: &Flags) -> Result<String> {
    let chain = tls::load_certs(&Pem::File(path.to_path_buf()))?;
    let leaf = Certificate::parse(&chain[0])?;
    modes(path, WRITABLE_BY_OTHERS, "0644")?;
    key_beside(path, flags, &leaf)?;
    if is_authority(&leaf) {
        return authority(&chain, path);
    }
    if let Some(pool) = authorities_for(path, flags)? {
        for usage in wanted_usages(&leaf, flags)? {
            pool.verify(&chain, usage, OffsetDateTime::now_utc())?;
        }
    }
    if !flags.string("host").is_empty() {
        leaf.check_host(flags.string("host"))?;
    }
    Ok(describe(&leaf))
}

fn is_authority(cert: &Certificate<'_>) -> bool {
    let marked = matches!(cert.parsed.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    marked || cert.is_version_1() && cert.parsed.subject().as_raw() == cert.parsed.issuer().as_raw()
}

fn authority(chain: &[CertificateDer<'static>], path: &Path) -> Result<String> {
    for der in chain {
        let cert = Certificate::parse(der)?;
        CertPool::new(path.display().to_string(), vec![der.clone()]).verify(
            std::slice::from_ref(der),
            Usage::ClientAuth,
            OffsetDateTime::now_utc(),
        )?;
        if matches!(cert.parsed.key_usage(), Ok(Some(usage)) if !usage.value.key_cert_sign()) {
            bail!(
                "x509: {} may not sign certificates (key usage lacks certSign)",
                cert.subject()
            );
        }
    }
    Ok(format!("authority {}", describe(&Certificate::parse(&chain[0])?)))
}

fn key_beside(path: &Path, flags: &Flags, leaf: &Certificate<'_>) -> Result<()> {
    let key = match flags.string("key") {
        "" => path.with_extension("key"),
        given => PathBuf::from(given),
    };
    if flags.string("key").is_empty() && !key.exists() {
        return Ok(());
    }
    match Key::load(&key)?.spki() == leaf.spki() {
        true => modes(&key, READABLE_BY_OTHERS, "0600"),
        false => bail!(
            "tls: private key does not match public key: {} belongs to another certificate",
            key.display()
        ),
    }
}

fn wanted_usages(leaf: &Certificate<'_>, flags: &Flags) -> Result<Vec<Usage>> {
    match flags.string("usage") {
        "server" => Ok(vec![Usage::ServerAuth]),
        "client" => Ok(vec![Usage::ClientAuth]),
        "" => {
            let (server, client) = usages(leaf);
            let both = [(server, Usage::ServerAuth), (client, Usage::ClientAuth)];
            Ok(both
                .into_iter()
                .filter(|(wanted, _)| *wanted)
                .map(|(_, usage)| usage)
                .collect())
        }
        other => bail!("--usage={other:?} is neither server nor client"),
    }
}

/// The CA of the flag, or the one that the layout has; None when neither is known.
fn authorities_for(path: &Path, flags: &Flags) -> Result<Option<CertPool>> {
    let file = match flags.string("ca") {
        "" => layout_ca(path),
        given => Some(PathBuf::from(given)),
    };
    file.map(|file| CertPool::load(&Pem::File(file)).context("CA"))
        .transpose()
}

/// Finds the row whose path ends the file's, then its authority in the same tree; else a ca.crt beside the file.
fn layout_ca(path: &Path) -> Option<PathBuf> {
    let base = path.with_extension("");
    let row: Option<&Profile> = PROFILES.iter().find(|row| base.ends_with(row.path));
    let by_row = row.and_then(|row| {
        let depth = row.path.split('/').count();
        let root = base.ancestors().nth(depth)?;
        let authority = AUTHORITIES
            .iter()
            .find(|authority| authority.name == row.authority)?;
        Some(store::crt(&root.join(authority.path)))
    });
    by_row
        .into_iter()
        .chain(path.parent().map(|parent| parent.join("ca.crt")))
        .find(|file| file.exists())
}

fn describe(cert: &Certificate<'_>) -> String {
    let offered = cert.offered();
    let names = if offered.names.is_empty() {
        String::new()
    } else {
        format!(", names {}", offered.names.join(","))
    };
    let left = (cert.not_after() - OffsetDateTime::now_utc()).whole_days();
    let version = match cert.is_version_1() {
        true => {
            "; version 1 without extensions: fine for clients, but a server needs names (openssl x509 -req -extfile ...)"
        }
        false => "",
    };
    format!(
        "{} issued by {}{names}, valid until {} ({left} days){version}",
        offered.subject, offered.issuer, offered.not_after
    )
}

fn private_key(path: &Path, key: &Key) -> Result<String> {
    let crt = path.with_extension("crt");
    if !crt.exists() {
        return Ok("a private key".to_owned());
    }
    let chain = tls::load_certs(&Pem::File(crt.clone()))?;
    match Certificate::parse(&chain[0])?.spki() == key.spki() {
        true => Ok(format!("the private key of {}", crt.display())),
        false => bail!("tls: private key does not match public key of {}", crt.display()),
    }
}

fn public_key(path: &Path, text: &str) -> Result<String> {
    let private = path.with_extension("key");
    if !private.exists() {
        return Ok("a public key".to_owned());
    }
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    match squeezed(&Key::load(&private)?.public_pem()) == squeezed(text) {
        true => Ok(format!("the public half of {}", private.display())),
        false => bail!(
            "it is not the public half of {}: tokens signed with that key would not verify",
            private.display()
        ),
    }
}

fn kubeconfig(path: &Path, flags: &Flags) -> Result<String> {
    let credentials = Credentials::read(path)?;
    let chain =
        tls::load_certs(&Pem::Data(credentials.cert.clone().into_bytes())).context("client-certificate")?;
    let leaf = Certificate::parse(&chain[0])?;
    if Key::from_pem(&credentials.key).context("client-key")?.spki() != leaf.spki() {
        bail!("tls: private key does not match public key: client-key belongs to another certificate");
    }
    let pool = match authorities_for(path, flags)? {
        Some(pool) => pool,
        None => CertPool::load(&Pem::Data(credentials.ca.clone().into_bytes()))
            .context("certificate-authority")?,
    };
    pool.verify(&chain, Usage::ClientAuth, OffsetDateTime::now_utc())?;
    Ok(format!("for {}: {}", credentials.server, describe(&leaf)))
}
