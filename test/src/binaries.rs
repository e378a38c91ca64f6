//! Where the daemons' binaries are.
//!
//! `FERROKUBE_BIN_KUBE_APISERVER` (and so on) names one binary, `FERROKUBE_BIN_DIR` a folder of them; otherwise they
//! are taken from the target folder that this test was built into.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The binary called `name`, such as `kube-apiserver`.
pub fn find(name: &str) -> Result<PathBuf> {
    let variable = format!("FERROKUBE_BIN_{}", name.to_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(&variable) {
        return existing(PathBuf::from(path)).with_context(|| variable);
    }
    let dir = match std::env::var_os("FERROKUBE_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => target_dir()?,
    };
    existing(dir.join(name)).with_context(|| {
        format!(
            "{name} is missing; build it with `cargo build -p {}` or set {variable}",
            package_of(name)
        )
    })
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is no file", path.display());
    }
    Ok(path.canonicalize()?)
}

/// `target/debug` for a test in `target/debug/deps`.
fn target_dir() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let dir = test.parent().and_then(Path::parent);
    Ok(dir
        .context("the test binary is not in a target folder")?
        .to_owned())
}

fn package_of(binary: &str) -> &str {
    match binary {
        "etcdctl" | "etcdutl" => "etcd",
        other => other,
    }
}

/// An image archive that `deploy/images/build` makes; `FERROKUBE_IMAGES` names another folder.
pub fn image(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("FERROKUBE_IMAGES") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images"),
    };
    let archive = dir.join(format!("{name}.tar"));
    existing(archive).with_context(|| format!("the image {name} is not built; run deploy/images/build"))
}

/// A program of the host, by its name.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}
