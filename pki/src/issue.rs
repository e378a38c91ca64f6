//! `pki issue`: one certificate of the table. Also the step that `init` repeats for every row.

use std::path::Path;

use anyhow::{Context, Result, bail};
use component_base::flags::{FlagSet, Flags};
use component_base::tls::{self, CertPool, Certificate, Pem, Usage};
use time::OffsetDateTime;

use crate::authority::{Authority, Request};
use crate::key::Key;
use crate::profiles::{self, AltNames, PROFILES, Profile};
use crate::settings::{self, Settings};
use crate::store;

pub fn flags() -> FlagSet {
    let set = FlagSet::plain(
        "pki issue",
        "Issues certificates: pki issue <profile>. For a worker: pki issue kubelet --node=NAME --node-ip=ADDRESS --out-dir=DIR.",
    );
    settings::flags(set)
        .string("node", "", "As --node-name.")
        .string("out-dir", "", "Where certificate and key go, by their file names, instead of their places below --cert-dir and --kubelet-dir.")
        .with_arguments()
}

/// `kubelet` means both of the kubelet's certificates.
pub fn run(flags: &Flags) -> Result<bool> {
    let names = flags.arguments();
    if names.is_empty() {
        bail!(
            "which profile? One of: {}",
            PROFILES.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
        );
    }
    let mut flags = flags.clone();
    if flags.is_set("node") {
        let node = flags.string("node").to_owned();
        flags.set("node-name", &node)?;
    }
    let settings = Settings::read(&flags)?;
    let out = Some(flags.string("out-dir"))
        .filter(|dir| !dir.is_empty())
        .map(Path::new);
    for name in names {
        let rows: Vec<&Profile> = PROFILES
            .iter()
            .filter(|row| row.name == name || (name == "kubelet" && row.name == "kubelet-client"))
            .collect();
        if rows.is_empty() {
            bail!("there is no profile {name:?}; pki explain lists them");
        }
        for row in rows {
            let authority = authority_of(row, &settings)?;
            println!("{}", ensure(row, &authority, &settings, out)?);
        }
    }
    Ok(true)
}

fn authority_of(row: &Profile, settings: &Settings) -> Result<Authority> {
    let authority =
        profiles::authority(row.authority).with_context(|| format!("no authority {}", row.authority))?;
    Authority::load(authority, &settings.cert_dir).context("run pki init first")
}

/// Keeps a certificate that serves; otherwise issues one, with the key that is there or a new one. The line says which.
pub fn ensure(
    row: &Profile,
    authority: &Authority,
    settings: &Settings,
    out: Option<&Path>,
) -> Result<String> {
    let base = match out {
        Some(dir) => dir.join(row.path.rsplit('/').next().unwrap_or(row.path)),
        None => settings.home(row.home).join(row.path),
    };
    let (crt, key_file) = (store::crt(&base), store::key(&base));
    let names = AltNames::of(row.names, settings);
    let existed = crt.exists();
    let lack = match existed {
        true => lacking(row, &crt, &key_file, &authority.pool(), &names)?,
        false => Some("not there yet".to_owned()),
    };
    let Some(lack) = lack else {
        return Ok(format!("{}: kept", crt.display()));
    };
    let key = Key::ensure(&key_file, settings.algorithm)?;
    let organizations: Vec<String> = row.organization.iter().map(ToString::to_string).collect();
    let request = Request {
        common_name: &row.common_name.replace("{node}", &settings.node_name),
        organizations: &organizations,
        names: &names,
        server: row.server,
        client: row.client,
        validity: settings.validity,
    };
    store::replace(&crt, &authority.issue(&request, &key)?, store::PUBLIC)?;
    Ok(match existed {
        true => format!("{}: issued again: {lack}", crt.display()),
        false => format!("{}: issued", crt.display()),
    })
}

/// Why a certificate that is there does not serve. A key that does not fit is an error: somebody must decide.
fn lacking(
    row: &Profile,
    crt: &Path,
    key_file: &Path,
    pool: &CertPool,
    names: &AltNames,
) -> Result<Option<String>> {
    let chain = tls::load_certs(&Pem::File(crt.to_path_buf()))?;
    let cert = Certificate::parse(&chain[0])?;
    if key_file.exists() && Key::load(key_file)?.spki() != cert.spki() {
        bail!(
            "{} and {} do not belong together: move one of them away",
            crt.display(),
            key_file.display()
        );
    }
    if !key_file.exists() {
        bail!(
            "{} is there without {}: put the key back, or move the certificate away",
            crt.display(),
            key_file.display()
        );
    }
    for (wanted, usage) in [(row.server, Usage::ServerAuth), (row.client, Usage::ClientAuth)] {
        if wanted && let Err(refusal) = pool.verify(&chain, usage, OffsetDateTime::now_utc()) {
            return Ok(Some(refusal.error.to_string()));
        }
    }
    match names.missing_from(&cert.dns_names(), &cert.ip_addresses()) {
        none if none.is_empty() => Ok(None),
        missing => Ok(Some(format!("it lacked the names {}", missing.join(", ")))),
    }
}
