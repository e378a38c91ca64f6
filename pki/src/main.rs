//! `pki`: the certificates and kubeconfigs of a cluster, in kubeadm's layout and names.
//!
//! The way of `pki init`: [`settings`] are the flags -> [`profiles`] is the one table of what a cluster needs ->
//! [`authority`] makes or adopts each CA -> [`store`] issues each leaf unless what lies on disk already serves ->
//! [`kubeconfig`] writes the files with embedded credentials. [`renew`], [`expiration`], [`verify`] and [`explain`]
//! walk the same table.
//!
//! Invariants: a private key is never overwritten; every file appears whole or not at all; keys and kubeconfigs are 600,
//! certificates 644; running `init` again changes nothing that still serves.

mod authority;
mod expiration;
mod explain;
mod init;
mod issue;
mod key;
mod kubeconfig;
mod profiles;
mod renew;
mod settings;
mod store;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use component_base::flags::{FlagSet, Flags, UsageError};
use component_base::version;

/// One subcommand: its name, its flags, what it does. The result is false when a check found something.
type Command = (&'static str, fn() -> FlagSet, fn(&Flags) -> Result<bool>);

const COMMANDS: &[Command] = &[
    ("init", init::flags, init::run),
    ("issue", issue::flags, issue::run),
    ("kubeconfig", kubeconfig::flags, kubeconfig::run),
    ("renew", renew::flags, renew::run),
    ("check-expiration", expiration::flags, expiration::run),
    ("verify", verify::flags, verify::run),
    ("explain", explain::flags, explain::run),
];

const USAGE: &str = "pki makes, renews and explains the certificates of a cluster.

Usage:
  pki init               make every CA, certificate, key and kubeconfig of a control-plane host; adopts what is there
  pki issue <profile>    issue one certificate (pki explain lists the profiles; pki issue kubelet --node NAME for a worker)
  pki kubeconfig <name>  write one kubeconfig (admin, super-admin, controller-manager, scheduler, kubelet, kube-proxy)
  pki renew [name...]    renew certificates with their keys and names (all, unless some are named)
  pki check-expiration   list when certificates expire
  pki verify <file...>   say why a peer would refuse a certificate, key, CA or kubeconfig
  pki explain [what]     what a profile is for, or what is in a file

Use \"pki <command> --help\" for the flags of a command.";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let name = args
        .next()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if let Some((_, flags, run)) = COMMANDS.iter().find(|(command, ..)| *command == name) {
        return command(flags(), *run, args.collect());
    }
    match name.as_str() {
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        "version" | "--version" => {
            println!("Kubernetes {}", version::GIT_VERSION);
            ExitCode::SUCCESS
        }
        other => fail(&format!("unknown command {other:?}\n\n{USAGE}")),
    }
}

fn command(flags: FlagSet, run: fn(&Flags) -> Result<bool>, args: Vec<OsString>) -> ExitCode {
    let flags = match flags.parse(args) {
        Ok(flags) => flags,
        Err(UsageError::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&error.to_string()),
    };
    match run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("Error: {message}");
    ExitCode::FAILURE
}
