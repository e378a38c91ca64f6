//! `pki init`: everything that a control-plane host needs, once.

use anyhow::{Context, Result};
use component_base::flags::{FlagSet, Flags};

use crate::authority::{Authority, Origin};
use crate::key::Key;
use crate::profiles::{AUTHORITIES, KUBECONFIGS, PROFILES};
use crate::settings::{self, Settings};
use crate::{issue, kubeconfig, store};

pub fn flags() -> FlagSet {
    settings::flags(FlagSet::plain(
        "pki init",
        "Makes every authority, certificate, key and kubeconfig of a control-plane host. Adopts and keeps what is there.",
    ))
}

pub fn run(flags: &Flags) -> Result<bool> {
    let settings = Settings::read(flags)?;
    let mut authorities = Vec::new();
    for row in AUTHORITIES {
        let (authority, origin) =
            Authority::ensure(row, &settings.cert_dir, settings.algorithm, settings.ca_validity)?;
        let what = match origin {
            Origin::Made => "made",
            Origin::Adopted if authority.is_external() => "adopted, its key is elsewhere",
            Origin::Adopted => "kept",
        };
        println!(
            "{}: {what}",
            store::crt(&settings.cert_dir.join(row.path)).display()
        );
        authorities.push(authority);
    }
    let authority = |name: &str| {
        authorities
            .iter()
            .find(|authority| authority.name == name)
            .with_context(|| format!("no authority {name}"))
    };
    for row in PROFILES {
        println!(
            "{}",
            issue::ensure(row, authority(row.authority)?, &settings, None)?
        );
    }
    println!("{}", service_account_keys(&settings)?);
    for row in KUBECONFIGS {
        println!("{}", kubeconfig::ensure(row, authority("ca")?, &settings, None)?);
    }
    Ok(true)
}

/// sa.key signs service account tokens, sa.pub verifies them.
fn service_account_keys(settings: &Settings) -> Result<String> {
    let (private, public) = (settings.cert_dir.join("sa.key"), settings.cert_dir.join("sa.pub"));
    let existed = private.exists();
    let key = Key::ensure(&private, settings.algorithm)?;
    if !public.exists() {
        store::write_new(&public, &key.public_pem(), store::PUBLIC)?;
    }
    Ok(format!(
        "{}: {}",
        private.display(),
        if existed { "kept" } else { "made" }
    ))
}
