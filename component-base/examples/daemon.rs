//! The smallest daemon of the house, and what this crate's integration tests start: health over HTTP(S) until drained.

use anyhow::Result;
use component_base::drain::Drain;
use component_base::flags::{FlagSet, Flags};
use component_base::health::Health;
use component_base::serve::{self, ConnInfo, DebugRoutes, Limits};
use component_base::tls::{ClientAuth, ServerTls};
use component_base::{http, sd_notify};
use hyper::StatusCode;

fn main() -> std::process::ExitCode {
    component_base::run("daemon", flags(), app)
}

fn flags() -> FlagSet {
    FlagSet::new("daemon", "Serves health until it is told to stop.")
        .string("bind-address", "127.0.0.1:0", "where to listen")
        .string("tls-cert-file", "", "serving certificate")
        .string("tls-private-key-file", "", "its key")
        .string("client-ca-file", "", "authority of clients")
        .removed("old-flag", true, "it does nothing")
}

async fn app(flags: Flags, drain: Drain) -> Result<()> {
    let tls = match flags.string("tls-cert-file") {
        "" => None,
        cert => Some(
            ServerTls::new(cert, flags.string("tls-private-key-file"))
                .client_ca(flags.string("client-ca-file"), ClientAuth::Optional)
                .load()?,
        ),
    };
    let listener = serve::bind(flags.string("bind-address"))?;
    println!("{}", listener.local_addr()?);
    let routes = DebugRoutes::new("daemon", &Health::new(), serve::configz("daemon", &1)).flags(&flags);
    let handler = serve::handler(move |request| {
        let answer = match request.uri().path() {
            "/whoami" => http::text(StatusCode::OK, &whoami(&request)),
            path => routes
                .respond(request.method(), path, request.uri().query())
                .unwrap_or_else(|| http::text(StatusCode::NOT_FOUND, "404 page not found\n")),
        };
        async move { answer }
    });
    sd_notify::ready();
    serve::serve(listener, tls, handler, Limits::default(), drain).await
}

fn whoami(request: &hyper::Request<hyper::body::Incoming>) -> String {
    let info = request.extensions().get::<std::sync::Arc<ConnInfo>>();
    let cert = info.and_then(|info| info.client_cert.as_deref());
    let who = cert.map_or("nobody".to_owned(), |cert| {
        format!("{} verified={}", cert.common_name, cert.verified.is_ok())
    });
    format!("{:?} {who}", request.version())
}
