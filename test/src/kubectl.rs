//! The kubectls of this machine: users have old and new ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::binaries::on_path;

/// One kubectl, by its minor version: 20 is 1.20.
#[derive(Clone, Debug)]
pub struct Kubectl {
    pub path: PathBuf,
    pub minor: u32,
}

/// Every version once, the oldest first: `kubectl` and `kubectl.1.27` (and so on) beside it, what `test/run` unpacked into
/// `target/kubectl`, and what `FERROKUBE_KUBECTLS` names, separated by colons. `FERROKUBE_KUBECTL_MINOR=20` wants one alone.
pub fn installed() -> Result<Vec<Kubectl>> {
    let mut found: Vec<Kubectl> = candidates()
        .into_iter()
        .filter_map(|path| identify(&path))
        .collect();
    if let Some(only) = std::env::var("FERROKUBE_KUBECTL_MINOR")
        .ok()
        .and_then(|minor| minor.parse::<u32>().ok())
    {
        found.retain(|kubectl| kubectl.minor == only);
    }
    found.sort_by_key(|kubectl| kubectl.minor);
    found.dedup_by_key(|kubectl| kubectl.minor);
    anyhow::ensure!(
        !found.is_empty(),
        "there is no kubectl on this machine; install kubernetes-client"
    );
    Ok(found)
}

fn candidates() -> Vec<PathBuf> {
    let named = std::env::var_os("FERROKUBE_KUBECTLS").unwrap_or_default();
    let mut paths: Vec<PathBuf> = std::env::split_paths(&named).filter(|p| p.is_file()).collect();
    paths.extend(on_path("kubectl"));
    let real = on_path("kubectl").and_then(|path| path.canonicalize().ok());
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kubectl/usr/bin/kubectl");
    for path in [real, Some(unpacked)].into_iter().flatten() {
        let siblings = path.parent().and_then(|dir| std::fs::read_dir(dir).ok());
        paths.extend(
            siblings
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .filter(|p| is_kubectl(p)),
        );
    }
    paths
}

/// `kubectl`, `kubectl.1.30`
fn is_kubectl(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let rest = name.strip_prefix("kubectl");
    rest.is_some_and(|rest| rest.chars().all(|c| c == '.' || c.is_ascii_digit()))
}

fn identify(path: &Path) -> Option<Kubectl> {
    let minor = minor_of(path)
        .inspect_err(|error| eprintln!("{}: {error:#}", path.display()))
        .ok()?;
    Some(Kubectl {
        path: path.to_owned(),
        minor,
    })
}

fn minor_of(path: &Path) -> Result<u32> {
    let told = Command::new(path)
        .args(["version", "--client", "-o", "json"])
        .output()?;
    let version: Value = serde_json::from_slice(&told.stdout)?;
    let minor = version["clientVersion"]["minor"]
        .as_str()
        .context("no minor version")?;
    // Builds of vendors say "32+".
    Ok(minor.trim_end_matches('+').parse()?)
}
