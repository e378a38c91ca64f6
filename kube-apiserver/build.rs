//! Gathers the API's descriptions for OpenAPI from the source of k8s-openapi, which the workspace builds anyway and which
//! carries upstream's doc comments as JSON schemas.
//!
//! Only files that cargo has already downloaded are read. Where they are not found the build goes on without descriptions
//! and says so: `K8S_OPENAPI_SOURCE` names the crate's folder then.

use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// The crate's module for the version of Kubernetes that we are.
const MODULE: &str = "src/v1_36";
const CRATE: &str = "k8s-openapi";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=K8S_OPENAPI_SOURCE");
    for input in [
        "build.rs",
        "../Cargo.lock",
        "../apimachinery/schema",
        "src/openapi",
        "src/openapi.rs",
    ] {
        println!("cargo::rerun-if-changed={input}");
    }
    let descriptions = match source() {
        Some(folder) => gather(&folder.join(MODULE))?,
        None => {
            println!(
                "cargo::warning=the source of {CRATE} was not found, so `kubectl explain` will show no descriptions; \
                 set K8S_OPENAPI_SOURCE to its folder (cargo vendor or cargo fetch bring it)"
            );
            String::new()
        }
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(out.join("descriptions.txt"), &descriptions)?;
    println!(
        "cargo::rustc-env=OPENAPI_FINGERPRINT={:016x}",
        fingerprint(&descriptions)?
    );
    Ok(())
}

/// Of everything that decides what a document says: clients keep documents for as long as their hash is the same.
fn fingerprint(descriptions: &str) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    descriptions.hash(&mut hasher);
    for folder in ["../apimachinery/schema", "src/openapi"] {
        for file in files(Path::new(folder))? {
            fs::read(file)?.hash(&mut hasher);
        }
    }
    fs::read("src/openapi.rs")?.hash(&mut hasher);
    Ok(hasher.finish())
}

/// The crate's folder, in the version that `Cargo.lock` names.
fn source() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("K8S_OPENAPI_SOURCE") {
        return usable(PathBuf::from(folder));
    }
    let version = locked_version()?;
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src"))
        .into_iter()
        .flatten()
        .flatten();
    registries
        .map(|registry| registry.path().join(format!("{CRATE}-{version}")))
        .chain([PathBuf::from("../vendor").join(CRATE)])
        .find_map(usable)
}

fn usable(folder: PathBuf) -> Option<PathBuf> {
    folder.join(MODULE).is_dir().then_some(folder)
}

fn locked_version() -> Option<String> {
    let lock = fs::read_to_string("../Cargo.lock").ok()?;
    let entry = lock
        .split("[[package]]")
        .find(|e| e.contains(&format!("name = \"{CRATE}\"\n")))?;
    let line = entry.lines().find_map(|l| l.strip_prefix("version = \""))?;
    Some(line.trim_end_matches('"').to_owned())
}

/// `type literal`, and below it ` field literal` for each field; literals as Rust wrote them, which is as JSON would.
fn gather(module: &Path) -> io::Result<String> {
    let mut out = String::new();
    for file in files(module)? {
        describe(&fs::read_to_string(file)?, &mut out);
    }
    Ok(out)
}

/// All files below `folder`, in the same order everywhere.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

const PROPERTY: &str = "                \"";
const OF_TYPE: &str = "            \"description\": \"";
const OF_FIELD: &str = "                    \"description\": \"";
const OF_REFERENCE: &str = "                    schema_obj.ensure_object().insert(\"description\".into(), \"";

/// The generated JSON schema of one type: its indentation tells the type's own description from its fields'.
fn describe(source: &str, out: &mut String) {
    let Some((name, schema)) = source
        .split_once("// Generated from definition ")
        .and_then(|(_, rest)| Some((rest.lines().next()?, rest.split_once("json_schema!({")?.1)))
    else {
        return;
    };
    let own = schema.lines().find_map(|line| literal(line, OF_TYPE, "\","));
    // Writing to a String does not fail.
    let _ = writeln!(out, "{name} {}", own.unwrap_or_default());
    let mut field = "";
    for line in schema.lines() {
        let property = line
            .strip_prefix(PROPERTY)
            .and_then(|rest| rest.split_once("\": "));
        if let Some((found, _)) = property {
            field = found;
        }
        let text = literal(line, OF_FIELD, "\",").or_else(|| literal(line, OF_REFERENCE, "\".into());"));
        if let Some(text) = text {
            let _ = writeln!(out, " {field} {text}");
        }
    }
}

fn literal<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.strip_prefix(before)?.strip_suffix(after)
}
