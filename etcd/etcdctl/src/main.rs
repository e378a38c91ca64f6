//! etcdctl: the command line client of etcd, with both of the original's faces.
//!
//! `ETCDCTL_API` chooses one, 3 by default. In [`ctlv3`] a command line is read by [`cobra`], global flags and
//! `ETCDCTL_*` variables become a [`client`] configuration, one file under `ctlv3/command` sends the requests, and a
//! [`printer`] writes the answer. [`ctlv2`] does the same over the HTTP API of etcd 3.4 and older. Everything that both print
//! is meant to be byte for byte what the originals print; [`go`] holds Go's manners that this takes, [`zap`] the log lines.
//!
//! What works on files (`snapshot status` and `restore`, `backup`) is done by [`etcdutl`].

#![forbid(unsafe_code)]

mod client;
mod cobra;
mod ctlv2;
mod ctlv3;
mod etcdutl;
mod exit;
mod fetch;
mod go;
mod printer;
mod process;
mod terminal;
mod zap;

use std::process::ExitCode;

use exit::Exit;

const API_VARIABLE: &str = "ETCDCTL_API";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Exit::error(format!("cannot start threads: {error}")).report(),
    };
    let result = runtime.block_on(run(&args));
    // Streams that nobody reads any more must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

async fn run(args: &[String]) -> Result<(), Exit> {
    match std::env::var(API_VARIABLE).unwrap_or_default().as_str() {
        "" | "3" => ctlv3::start(args).await,
        "2" => ctlv2::start(args).await,
        other => {
            eprintln!("unsupported API version {other}");
            Err(Exit::silent(exit::code::ERROR))
        }
    }
}
