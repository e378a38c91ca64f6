//! An OCI image layout in one tar: `oci-layout`, `index.json` and the blobs under their digests.
//!
//! The layer is not compressed: import and unpack of a local archive are then plain copies.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::layer::{Entry, Layer};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The reproducible birthday of every image.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What a container of the image runs by default.
#[derive(Default)]
pub struct Runtime {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
}

/// The whole archive for an image of one layer called `name`.
pub fn pack(name: &str, runtime: &Runtime, layer: Layer) -> Result<Vec<u8>> {
    let mut blobs = Blobs::default();
    let layer = blobs.add(LAYER, layer.into_tar()?);
    let config = blobs.add(CONFIG, config(runtime, &layer)?);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut manifest = blobs.add(MANIFEST, serde_json::to_vec(&manifest)?);
    manifest["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit(':').next(),
    });
    manifest["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    blobs.into_tar(&index)
}

fn config(runtime: &Runtime, layer: &Value) -> Result<Vec<u8>> {
    let config = json!({
        "created": CREATED,
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": runtime.entrypoint,
            "Cmd": runtime.cmd,
            "Env": runtime.env,
            "User": runtime.user,
            "WorkingDir": runtime.working_dir,
        },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        "history": [{ "created": CREATED, "created_by": "ferrokube pack-image" }],
    });
    Ok(serde_json::to_vec(&config)?)
}

/// Go's name of the architecture that this program was built for.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Blobs by the hexadecimal form of their SHA-256.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    /// Keeps a blob and returns its descriptor.
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let hex: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let descriptor =
            json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() });
        self.0.insert(hex, bytes);
        descriptor
    }

    fn into_tar(self, index: &Value) -> Result<Vec<u8>> {
        let mut tar = Layer::default();
        let file = |bytes| Entry::File { bytes, mode: 0o644 };
        tar.add("/oci-layout", file(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()))?;
        tar.add("/index.json", file(serde_json::to_vec(index)?))?;
        for (hex, bytes) in self.0 {
            tar.add(&format!("/blobs/sha256/{hex}"), file(bytes))?;
        }
        tar.into_tar()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn image() -> Vec<u8> {
        let mut layer = Layer::default();
        layer
            .add(
                "/pause",
                Entry::File {
                    bytes: b"binary".to_vec(),
                    mode: 0o755,
                },
            )
            .expect("adds");
        let runtime = Runtime {
            entrypoint: vec!["/pause".into()],
            ..Runtime::default()
        };
        pack("localhost/ferrokube/pause:0.1", &runtime, layer).expect("packs")
    }

    fn contents(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(archive)
            .entries()
            .expect("reads")
            .map(|entry| {
                let mut entry = entry.expect("entry");
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("content");
                (entry.path().expect("path").display().to_string(), bytes)
            })
            .collect()
    }

    #[test]
    fn every_digest_leads_to_a_blob_with_that_digest() {
        let files = contents(&image());
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("digest");
            let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
            let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(format!("sha256:{hex}"), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("index");
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).expect("manifest");
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).expect("config");
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(contents(&layer)["pause"], b"binary");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(config["config"]["Entrypoint"], json!(["/pause"]));
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(
            annotations["io.containerd.image.name"],
            "localhost/ferrokube/pause:0.1"
        );
    }

    #[test]
    fn packing_twice_gives_the_same_bytes() {
        assert_eq!(image(), image());
    }
}
