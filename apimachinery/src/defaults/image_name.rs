//! The pull policy that an image's tag implies.

/// `Always` for `latest`, said or unsaid; a digest or another tag can be kept.
pub(super) fn default_pull_policy(image: &str) -> &'static str {
    match is_latest(image) {
        true => "Always",
        false => "IfNotPresent",
    }
}

/// False also for what is no image name: upstream's parser then finds no tag.
fn is_latest(image: &str) -> bool {
    let (name, has_digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    is_repository(path)
        && match tag {
            Some(tag) => tag == "latest",
            None => !has_digest,
        }
}

fn is_repository(path: &str) -> bool {
    let (domain, rest) = match path.split_once('/') {
        Some((first, rest)) if is_domain(first) => (Some(first), rest),
        _ => (None, path),
    };
    // 64 hexadecimal digits are an image ID, not a name.
    let is_id = domain.is_none() && rest.len() == 64 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    !is_id && rest.split('/').all(is_component)
}

fn is_domain(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|&b| alphanumeric(b))
        && bytes.last().is_some_and(|&b| alphanumeric(b))
        && bytes
            .iter()
            .all(|&b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latest_is_always_pulled() {
        for image in [
            "nginx",
            "nginx:latest",
            "reg:5000/a/b",
            "docker.io/library/nginx:latest",
            "x@sha256:0:latest",
        ] {
            let expected = if image.contains('@') {
                "IfNotPresent"
            } else {
                "Always"
            };
            assert_eq!(default_pull_policy(image), expected, "{image}");
        }
        for image in ["nginx:1.25", "reg:5000/a:v1", "", "UPPER/Case", "a//b"] {
            assert_eq!(default_pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
