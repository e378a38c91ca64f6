//! `pki explain`: what the rows of the table are for, and what is in a file.

use std::path::Path;

use anyhow::{Result, bail};
use component_base::flags::{FlagSet, Flags};
use component_base::tls::{self, Certificate, Pem};

use crate::kubeconfig::Credentials;
use crate::profiles::{self, AUTHORITIES, KUBECONFIGS, PROFILES, Profile};
use crate::renew::usages;

pub fn flags() -> FlagSet {
    FlagSet::plain(
        "pki explain",
        "Lists the profiles, explains one, or tells what is in a certificate or kubeconfig file.",
    )
    .with_arguments()
}

pub fn run(flags: &Flags) -> Result<bool> {
    if flags.arguments().is_empty() {
        list();
    }
    for what in flags.arguments() {
        if let Some(row) = profiles::profile(what) {
            print!("{}", profile(row));
        } else if let Some(row) = profiles::kubeconfig(what).filter(|_| !Path::new(what).exists()) {
            println!(
                "{}: {}; CN={} O={}, signed by ca",
                row.file,
                row.purpose,
                row.common_name,
                row.organization.unwrap_or("-")
            );
        } else if let Some(row) = profiles::authority(what) {
            println!("{}.crt: {}; CN={}", row.path, row.purpose, row.common_name);
        } else if Path::new(what).exists() {
            file(Path::new(what))?;
        } else {
            bail!("{what:?} is neither a profile nor a file");
        }
    }
    Ok(true)
}

fn list() {
    for row in AUTHORITIES {
        println!("{:26} {}", row.name, row.purpose);
    }
    for row in PROFILES {
        println!("{:26} {}", row.name, row.purpose);
    }
    for row in KUBECONFIGS {
        println!("{:26} {}", row.file, row.purpose);
    }
    println!(
        "{:26} signing and verifying service account tokens (kube-apiserver --service-account-signing-key-file, --service-account-key-file)",
        "sa.key, sa.pub"
    );
}

fn profile(row: &Profile) -> String {
    let usages: Vec<&str> = [(row.server, "server"), (row.client, "client")]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| name)
        .collect();
    format!(
        "{}: {}\n  file       {}.crt, {}.key\n  signed by  {}\n  subject    CN={} O={}\n  usage      {}\n",
        row.name,
        row.purpose,
        row.path,
        row.path,
        row.authority,
        row.common_name,
        row.organization.unwrap_or("-"),
        usages.join(", ")
    )
}

fn file(path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    let pem = match text.contains("-----BEGIN CERTIFICATE-----") {
        true => Pem::File(path.to_path_buf()),
        false => {
            let credentials = Credentials::read(path)?;
            println!("kubeconfig for {}", credentials.server);
            Pem::Data(credentials.cert.into_bytes())
        }
    };
    for der in tls::load_certs(&pem)? {
        let cert = Certificate::parse(&der)?;
        let offered = cert.offered();
        let (server, client) = usages(&cert);
        println!("certificate (version {})", offered.version);
        println!("  subject    {}", offered.subject);
        println!("  issuer     {}", offered.issuer);
        println!(
            "  names      {}",
            if offered.names.is_empty() {
                "none".to_owned()
            } else {
                offered.names.join(", ")
            }
        );
        println!("  usage      server={server} client={client}");
        println!("  valid      until {}", offered.not_after);
        println!("  serial     {}", cert.parsed.raw_serial_as_string());
    }
    Ok(())
}
