//! Kubeconfigs with embedded credentials: written, read back, kept while they serve.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use component_base::config;
use component_base::flags::{FlagSet, Flags};
use component_base::tls::{self, Certificate, Pem, Usage};
use serde_json::Value;
use time::OffsetDateTime;

use crate::authority::{Authority, Request};
use crate::key::{self, Key};
use crate::profiles::{self, AltNames, Endpoint, KUBECONFIGS, Kubeconfig};
use crate::settings::{self, Settings};
use crate::store;

pub fn flags() -> FlagSet {
    let set = FlagSet::plain(
        "pki kubeconfig",
        "Writes a kubeconfig: pki kubeconfig <name>. For a worker: pki kubeconfig kubelet --node=NAME --out=FILE.",
    );
    settings::flags(set)
        .string("node", "", "As --node-name.")
        .string(
            "out",
            "",
            "The file to write instead of the one in --kubeconfig-dir.",
        )
        .with_arguments()
}

pub fn run(flags: &Flags) -> Result<bool> {
    let [name] = flags.arguments() else {
        bail!(
            "which kubeconfig? One of: {}",
            KUBECONFIGS
                .iter()
                .map(|row| row.name)
                .collect::<Vec<_>>()
                .join(", ")
        );
    };
    let row = profiles::kubeconfig(name)
        .with_context(|| format!("there is no kubeconfig {name:?}; pki explain lists them"))?;
    let mut flags = flags.clone();
    if flags.is_set("node") {
        let node = flags.string("node").to_owned();
        flags.set("node-name", &node)?;
    }
    let settings = Settings::read(&flags)?;
    let ca = profiles::authority("ca").context("no authority ca")?;
    let authority = Authority::load(ca, &settings.cert_dir).context("run pki init first")?;
    let out = Some(flags.string("out"))
        .filter(|file| !file.is_empty())
        .map(PathBuf::from);
    println!("{}", ensure(row, &authority, &settings, out)?);
    Ok(true)
}

/// Keeps a file that serves; otherwise writes it, with the key that it has or a new one. The line says which.
pub fn ensure(
    row: &Kubeconfig,
    authority: &Authority,
    settings: &Settings,
    out: Option<PathBuf>,
) -> Result<String> {
    let path = out.unwrap_or_else(|| settings.kubeconfig_dir.join(row.file));
    let server = match row.server {
        Endpoint::Cluster => settings.cluster_url(),
        Endpoint::Local => settings.local_url(),
    };
    let existing = path.exists().then(|| Credentials::read(&path)).transpose()?;
    let lack = existing
        .as_ref()
        .map_or(Some("not there yet".to_owned()), |credentials| {
            credentials.lacking(authority, &server)
        });
    let Some(lack) = lack else {
        return Ok(format!("{}: kept", path.display()));
    };
    let common_name = row.common_name.replace("{node}", &settings.node_name);
    let key_pem = match &existing {
        Some(credentials) => credentials.key.clone(),
        None => key::generate(settings.algorithm)?,
    };
    let organizations: Vec<String> = row.organization.iter().map(ToString::to_string).collect();
    let request = Request {
        common_name: &common_name,
        organizations: &organizations,
        names: &AltNames::default(),
        server: false,
        client: true,
        validity: settings.validity,
    };
    let cert = authority.issue(&request, &Key::from_pem(&key_pem)?)?;
    let credentials = Credentials {
        server,
        ca: authority.pem.clone(),
        cert,
        key: key_pem,
    };
    store::replace(
        &path,
        &credentials.render(&common_name, &settings.cluster_name),
        store::SECRET,
    )?;
    Ok(match existing {
        Some(_) => format!("{}: written again: {lack}", path.display()),
        None => format!("{}: written", path.display()),
    })
}

/// What a kubeconfig says about its current context.
pub struct Credentials {
    pub server: String,
    pub ca: String,
    pub cert: String,
    pub key: String,
}

impl Credentials {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let directory = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, directory).with_context(|| path.display().to_string())
    }

    fn parse(text: &str, directory: &Path) -> Result<Self> {
        let config = config::yaml_to_json(text)?;
        let current = text_at(&config, "/current-context").unwrap_or_default();
        let context = entry(&config, "contexts", "context", &current)?;
        let cluster = entry(
            &config,
            "clusters",
            "cluster",
            &text_at(&context, "/cluster").unwrap_or_default(),
        )?;
        let user = entry(
            &config,
            "users",
            "user",
            &text_at(&context, "/user").unwrap_or_default(),
        )?;
        Ok(Credentials {
            server: text_at(&cluster, "/server").unwrap_or_default(),
            ca: material(&cluster, "certificate-authority", directory)?,
            cert: material(&user, "client-certificate", directory)?,
            key: material(&user, "client-key", directory)?,
        })
    }

    fn lacking(&self, authority: &Authority, server: &str) -> Option<String> {
        let pem = Pem::Data(self.cert.clone().into_bytes());
        let chain = match tls::load_certs(&pem) {
            Ok(chain) => chain,
            Err(error) => return Some(format!("its certificate cannot be read: {error:#}")),
        };
        if let Err(refusal) = authority
            .pool()
            .verify(&chain, Usage::ClientAuth, OffsetDateTime::now_utc())
        {
            return Some(refusal.error.to_string());
        }
        if self.server != server {
            return Some(format!("its server was {}", self.server));
        }
        let ca = tls::load_certs(&Pem::Data(self.ca.clone().into_bytes()));
        match ca {
            Ok(ca) if ca.contains(&authority.der) => None,
            _ => Some("it trusted another authority".to_owned()),
        }
    }

    pub fn not_after(&self) -> Result<OffsetDateTime> {
        let chain = tls::load_certs(&Pem::Data(self.cert.clone().into_bytes()))?;
        Ok(Certificate::parse(&chain[0])?.not_after())
    }

    pub fn render(&self, user: &str, cluster: &str) -> String {
        let encode = |text: &str| STANDARD.encode(text);
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {}\n  name: {cluster}\n\
             contexts:\n- context:\n    cluster: {cluster}\n    user: {user}\n  name: {user}@{cluster}\n\
             current-context: {user}@{cluster}\nkind: Config\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
            encode(&self.ca),
            self.server,
            encode(&self.cert),
            encode(&self.key),
        )
    }

    /// The same file with another certificate; names of cluster and user stay.
    pub fn with_cert(text: &str, cert: &str) -> Result<String> {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with("client-certificate-data:"));
        let line =
            line.ok_or_else(|| anyhow!("its certificate is not embedded: renew the file that it names"))?;
        let indent = &line[..line.len() - line.trim_start().len()];
        Ok(text.replacen(
            line,
            &format!("{indent}client-certificate-data: {}", STANDARD.encode(cert)),
            1,
        ))
    }
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

fn entry(config: &Value, list: &str, field: &str, name: &str) -> Result<Value> {
    let items = config
        .get(list)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let found = items
        .iter()
        .find(|item| item.get("name").and_then(Value::as_str) == Some(name));
    found
        .and_then(|item| item.get(field))
        .cloned()
        .ok_or_else(|| anyhow!("{list} has no entry {name:?}"))
}

/// `<field>-data` wins over the file that `<field>` names, as in client-go.
fn material(value: &Value, field: &str, directory: &Path) -> Result<String> {
    if let Some(data) = value.get(format!("{field}-data")).and_then(Value::as_str) {
        let bytes = STANDARD
            .decode(data)
            .with_context(|| format!("{field}-data is not base64"))?;
        return String::from_utf8(bytes).with_context(|| format!("{field}-data is not PEM"));
    }
    match value.get(field).and_then(Value::as_str) {
        Some(file) => std::fs::read_to_string(directory.join(file))
            .with_context(|| format!("{field}: {}", directory.join(file).display())),
        None => bail!("neither {field}-data nor {field} is set"),
    }
}
