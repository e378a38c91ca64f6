//! The secure port: health for everyone, the rest for those whom the API server lets.

mod delegated;

use std::sync::Arc;

use anyhow::{Context, Result};
use client::{Client, kubeconfig};
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::health::Health;
use component_base::http::text;
use component_base::serve::{self, DebugRoutes, Limits};
use component_base::tls::{ClientAuth, Pem, ServerTls, parse_cipher_suites, parse_min_version, self_signed};
use hyper::StatusCode;
use tokio::task::JoinHandle;

use crate::config::{self, Configuration};
use delegated::{Delegated, Verdict};

/// The server's task; ends with the drain.
pub struct Serving(Option<JoinHandle<Result<()>>>);

impl Serving {
    pub async fn finish(self) -> Result<()> {
        match self.0 {
            Some(task) => task.await.context("serving")?,
            None => Ok(()),
        }
    }
}

pub async fn start(
    flags: &Flags,
    configuration: &Configuration,
    client: &Client,
    health: &Health,
    drain: Drain,
) -> Result<Serving> {
    let port = flags.int("secure-port");
    if port == 0 {
        return Ok(Serving(None));
    }
    let port = u16::try_from(port)
        .ok()
        .context("--secure-port: must be between 0 and 65535")?;
    let tls = tls(flags)?.load()?;
    let listener = serve::bind(format!("{}:{port}", bracketed(flags.string("bind-address"))))
        .context("--bind-address, --secure-port")?;
    let configz = serve::configz(config::GROUP, configuration);
    let routes = DebugRoutes::new("kube-scheduler", health, configz).flags(flags);
    let delegated = Arc::new(delegated(flags, client)?);
    let handler = serve::handler(move |request| {
        let (routes, delegated) = (routes.clone(), Arc::clone(&delegated));
        async move {
            match delegated.judge(&request).await {
                Verdict::Allowed => {}
                Verdict::Unauthorized => return text(StatusCode::UNAUTHORIZED, "Unauthorized\n"),
                Verdict::Forbidden(why) => return text(StatusCode::FORBIDDEN, &why),
                Verdict::Unknown(why) => return text(StatusCode::INTERNAL_SERVER_ERROR, &why),
            }
            let (method, uri) = (request.method(), request.uri());
            let answer = routes.respond(method, uri.path(), uri.query());
            answer.unwrap_or_else(|| text(StatusCode::NOT_FOUND, "404 page not found\n"))
        }
    });
    tracing::info!(address = %listener.local_addr()?, "Serving securely");
    let task = tokio::spawn(serve::serve(
        listener,
        Some(tls),
        handler,
        Limits::default(),
        drain,
    ));
    Ok(Serving(Some(task)))
}

/// An IPv6 address needs brackets before its port.
fn bracketed(address: &str) -> String {
    if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

fn tls(flags: &Flags) -> Result<ServerTls> {
    let (cert, key) = match (
        flags.string("tls-cert-file"),
        flags.string("tls-private-key-file"),
    ) {
        ("", "") => self_signed(
            flags.string("cert-dir"),
            "kube-scheduler",
            "localhost",
            &["127.0.0.1", flags.string("bind-address")],
        )?,
        ("", _) => anyhow::bail!("--tls-private-key-file is given without --tls-cert-file"),
        (_, "") => anyhow::bail!("--tls-cert-file is given without --tls-private-key-file"),
        (cert, key) => (Pem::File(cert.into()), Pem::File(key.into())),
    };
    let mut tls = ServerTls::from_pem(cert, key);
    tls.min_version = parse_min_version(flags.string("tls-min-version")).context("--tls-min-version")?;
    tls.cipher_suites =
        parse_cipher_suites(&flags.strings("tls-cipher-suites")).context("--tls-cipher-suites")?;
    match flags.string("client-ca-file") {
        "" => Ok(tls),
        ca => Ok(tls.client_ca(ca, ClientAuth::Optional)),
    }
}

fn delegated(flags: &Flags, client: &Client) -> Result<Delegated> {
    let by = |flag: &str| match flags.string(flag) {
        "" => Ok(client.clone()),
        path => {
            let rest = kubeconfig::load(std::path::Path::new(path)).with_context(|| format!("--{flag}"))?;
            Client::new(rest, super::USER_AGENT).with_context(|| format!("--{flag}"))
        }
    };
    Ok(Delegated::new(
        by("authentication-kubeconfig")?,
        by("authorization-kubeconfig")?,
        flags.strings("authorization-always-allow-paths"),
        flags.duration("authorization-webhook-cache-authorized-ttl"),
    ))
}
