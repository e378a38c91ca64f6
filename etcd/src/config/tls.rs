//! Certificates of listeners and of calls to other members, and whom they let in.

use anyhow::{Context as _, Result, bail};
use component_base::flags::Flags;
use component_base::tls::{
    Allowed, ClientAuth, ClientTls, MinVersion, Pem, SelfSigned, ServerTls, alpn, parse_min_version,
};

use super::{at_least_one, listen_urls, split_url, urls};

/// The TLS of client or peer listeners, if any of them speaks it.
pub fn server(flags: &Flags, prefix: &str, listeners: &[&str]) -> Result<Option<ServerTls>> {
    let value = |name: &str| flags.string(&format!("{prefix}{name}")).to_owned();
    let listen = listeners[0];
    let mut wanted = false;
    for listen in listeners {
        wanted |= listen_urls(flags, listen)?.iter().any(|url| url.tls);
    }
    let (cert, key, ca) = (value("cert-file"), value("key-file"), value("trusted-ca-file"));
    let rules = rules(flags)?;
    if !wanted {
        if !cert.is_empty() || !key.is_empty() {
            tracing::warn!(
                "the scheme of --{listen} is HTTP while --{prefix}cert-file or --{prefix}key-file are given; they are ignored"
            );
        }
        return Ok(None);
    }
    let auto = flags.bool(&format!("{prefix}auto-tls"));
    if auto && cert.is_empty() && key.is_empty() {
        let (cert, key) = self_signed(flags, prefix, listen)?;
        return Ok(Some(ServerTls::from_pem(cert, key)));
    }
    if auto {
        tracing::warn!("ignoring --{prefix}auto-tls since certificates are given");
    }
    if cert.is_empty() || key.is_empty() {
        bail!("--{listen} has https URLs: --{prefix}cert-file and --{prefix}key-file must both be given");
    }
    let mut tls = ServerTls::new(cert, key);
    // Either asks for certificates, as in etcd; without a CA nothing could be checked.
    let ca_missing = ca.is_empty();
    match (ca_missing, flags.bool(&format!("{prefix}client-cert-auth"))) {
        (true, true) => bail!("--{prefix}client-cert-auth needs --{prefix}trusted-ca-file"),
        (false, _) => tls = tls.client_ca(ca, ClientAuth::Required),
        (true, false) => {}
    }
    let crl_flag = match prefix {
        "" => "client-crl-file",
        _ => "peer-crl-file",
    };
    if !flags.string(crl_flag).is_empty() {
        if ca_missing {
            bail!("--{crl_flag} needs --{prefix}trusted-ca-file: without it no certificate is asked for");
        }
        tls.crl_file = Some(flags.string(crl_flag).into());
    }
    (tls.allowed, tls.binds_clients) = match prefix {
        "" => (allowed_clients(flags)?, false),
        _ => (allowed_peers(flags)?, binds_peers(flags)),
    };
    if ca_missing && !tls.allowed.is_everybody() {
        bail!(
            "names are allowed for certificates on --{listen}, and none is asked for: give --{prefix}trusted-ca-file"
        );
    }
    (tls.min_version, tls.at_most_tls12, tls.cipher_suites) = (rules.min, rules.at_most_tls12, rules.suites);
    Ok(Some(tls))
}

/// Which TLS is spoken; wrong flags are refused also where no listener has any.
struct Rules {
    min: MinVersion,
    at_most_tls12: bool,
    suites: Vec<String>,
}

fn rules(flags: &Flags) -> Result<Rules> {
    let min = parse_min_version(flags.string("tls-min-version")).context("--tls-min-version")?;
    let suites = flags.strings("cipher-suites");
    if min == MinVersion::Tls13 && !suites.is_empty() {
        bail!("cipher suites cannot be configured when only TLS1.3 is enabled: leave out --cipher-suites");
    }
    Ok(Rules {
        min,
        at_most_tls12: at_most_tls12(flags, min)?,
        suites: component_base::tls::parse_cipher_suites(&suites).context("--cipher-suites")?,
    })
}

fn at_most_tls12(flags: &Flags, min: MinVersion) -> Result<bool> {
    let max = flags.string("tls-max-version");
    let limits = !max.is_empty() && parse_min_version(max).context("--tls-max-version")? == MinVersion::Tls12;
    if limits && min == MinVersion::Tls13 {
        bail!("min version (TLS1.3) is greater than max version ({max})");
    }
    Ok(limits)
}

fn allowed_clients(flags: &Flags) -> Result<Allowed> {
    allowed(flags, "client-cert-allowed-cn", "client-cert-allowed-hostname")
}

pub fn allowed_peers(flags: &Flags) -> Result<Allowed> {
    allowed(flags, "peer-cert-allowed-cn", "peer-cert-allowed-hostname")
}

fn allowed(flags: &Flags, common_names: &str, hostnames: &str) -> Result<Allowed> {
    let allowed = Allowed {
        common_names: flags.strings(common_names),
        hostnames: flags.strings(hostnames),
    };
    if !allowed.common_names.is_empty() && !allowed.hostnames.is_empty() {
        bail!("--{common_names} and --{hostnames} are mutually exclusive");
    }
    Ok(allowed)
}

/// Whether members must call from where their certificates say.
fn binds_peers(flags: &Flags) -> bool {
    !flags.bool("peer-skip-client-san-verification")
        && !flags.bool("experimental-peer-skip-client-san-verification")
}

/// A pair that is made once and stays.
fn self_signed(flags: &Flags, prefix: &str, listen: &str) -> Result<(Pem, Pem)> {
    let data_dir = crate::bootstrap::data_dir(flags.string("data-dir"), flags.string("name"));
    let whose = if prefix.is_empty() { "client" } else { "peer" };
    let urls = urls(flags, listen)?;
    let host = |url: &String| {
        let (scheme, host) = split_url(url).ok()?;
        if scheme.starts_with("unix") {
            return Some("localhost".to_owned());
        }
        let (name, _) = host.rsplit_once(':')?;
        Some(name.trim_start_matches('[').trim_end_matches(']').to_owned())
    };
    let hosts: Vec<String> = urls.iter().filter_map(host).collect();
    let (first, others) = hosts.split_first().context("no URL to make a certificate for")?;
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let dir = data_dir.join("fixtures").join(whose);
    let years = at_least_one(flags, "self-signed-cert-validity")?;
    let wanted = SelfSigned {
        host: first,
        alternate_names: &others,
        years,
        for_clients: prefix == "peer-",
    };
    let pair = wanted.pair(dir.join("cert.pem"), dir.join("key.pem"))?;
    tracing::warn!(dir = %dir.display(), "a self-signed certificate is used for {whose} traffic: it keeps secrets, and proves nothing");
    Ok(pair)
}

/// Members show the same certificate when they call as when they are called, unless they have one for it.
pub fn peer_client(flags: &Flags) -> Option<ClientTls> {
    let value = |name: &str| Some(flags.string(name)).filter(|value| !value.is_empty());
    let file = |name: &str| value(name).map(|path| Pem::File(path.into()));
    let cert = file("peer-client-cert-file").or_else(|| file("peer-cert-file"));
    let key = file("peer-client-key-file").or_else(|| file("peer-key-file"));
    let ca = file("peer-trusted-ca-file");
    let speaks_tls = ["initial-cluster", "initial-advertise-peer-urls"]
        .iter()
        .any(|name| flags.string(name).contains("https://"));
    if cert.is_none() && ca.is_none() && !speaks_tls {
        return None;
    }
    Some(ClientTls {
        // Nobody vouches for what members made themselves.
        insecure: flags.bool("peer-auto-tls") && cert.is_none(),
        // Members that DNS names, under authorities that anybody may use, prove that they belong to the domain.
        server_name: value("discovery-srv").filter(|_| ca.is_none()).map(str::to_owned),
        ca,
        cert: cert.zip(key),
        // Streams without an end are made for HTTP/1.1, as etcd's are.
        alpn: vec![alpn::HTTP11.to_vec()],
    })
}
