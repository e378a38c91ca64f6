//! Checks of names, labels, ports and addresses. Each returns upstream's messages; an empty list means valid.

mod ip;

pub use ip::{cidr, cidr_for_legacy_field, ip, ip_for_legacy_field, parse_cidr_sloppy, parse_ip_sloppy};

pub const DNS1123_LABEL_MAX: usize = 63;
pub const DNS1123_SUBDOMAIN_MAX: usize = 253;
pub const DNS1035_LABEL_MAX: usize = 63;
pub const LABEL_VALUE_MAX: usize = 63;
pub const PORT_NAME_MAX: usize = 15;

const LABEL_NAME_MAX: usize = 63;

pub type Messages = Vec<String>;

fn max_len(value: &str, max: usize, messages: &mut Messages) {
    if value.len() > max {
        messages.push(format!("must be no more than {max} characters"));
    }
}

/// Upstream's wording around a regular expression and its examples.
fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let quoted: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{regex}')",
        quoted.join(" or ")
    )
}

/// Non-empty, `inner` throughout and `edge` at both ends.
fn is_edged(value: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => edge(first) && edge(last) && bytes.iter().all(|&b| inner(b)),
        _ => false,
    }
}

fn lower_alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(value: &str) -> bool {
    is_edged(value, lower_alphanumeric, |b| lower_alphanumeric(b) || b == b'-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

const LABEL_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_REGEX: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

pub fn dns1123_label(value: &str) -> Messages {
    let mut messages = Messages::new();
    max_len(value, DNS1123_LABEL_MAX, &mut messages);
    if !is_label(value) {
        messages.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL_REGEX,
                &["my-name", "123-abc"],
            )
        });
    }
    messages
}

pub fn dns1123_subdomain(value: &str) -> Messages {
    let mut messages = Messages::new();
    max_len(value, DNS1123_SUBDOMAIN_MAX, &mut messages);
    if !is_subdomain(value) {
        messages.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_REGEX,
            &["example.com"],
        ));
    }
    messages
}

pub fn wildcard_dns1123_subdomain(value: &str) -> Messages {
    let mut messages = Messages::new();
    max_len(value, DNS1123_SUBDOMAIN_MAX, &mut messages);
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        messages.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN_REGEX}"),
            &["*.example.com"],
        ));
    }
    messages
}

pub fn dns1035_label(value: &str) -> Messages {
    let mut messages = Messages::new();
    max_len(value, DNS1035_LABEL_MAX, &mut messages);
    if !is_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        messages.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    messages
}

/// A name that generation will extend may end in a dash.
fn masked(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        Some(rest) if prefix && !rest.is_empty() => {
            let mut end = rest.len() - 1;
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            format!("{}a", &rest[..end]).into()
        }
        _ => name.into(),
    }
}

/// The name of most objects; `prefix` says that it is a `generateName`.
pub fn name_is_dns_subdomain(name: &str, prefix: bool) -> Messages {
    dns1123_subdomain(&masked(name, prefix))
}

/// The name of namespaces.
pub fn name_is_dns_label(name: &str, prefix: bool) -> Messages {
    dns1123_label(&masked(name, prefix))
}

pub fn name_is_dns1035_label(name: &str, prefix: bool) -> Messages {
    dns1035_label(&masked(name, prefix))
}

/// What any name in a path must satisfy (RBAC objects have no other rule).
pub fn path_segment_name(name: &str, prefix: bool) -> Messages {
    let mut messages = Messages::new();
    if !prefix && (name == "." || name == "..") {
        messages.push(format!("may not be '{name}'"));
        return messages;
    }
    for bad in ["/", "%"].into_iter().filter(|bad| name.contains(bad)) {
        messages.push(format!("may not contain '{bad}'"));
    }
    messages
}

const LABEL_KEY_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

fn is_label_text(value: &str) -> bool {
    is_edged(
        value,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    )
}

/// The key of a label or annotation: `name` or `example.com/name`.
pub fn label_key(value: &str) -> Messages {
    let mut messages = Messages::new();
    let examples = &["MyName", "my.name", "123-abc"];
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_owned());
            } else {
                messages.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|message| format!("prefix part {message}")),
                );
            }
            name
        }
        _ => {
            let rule = regex_error(LABEL_KEY_MESSAGE, LABEL_KEY_REGEX, examples);
            return vec![format!(
                "a valid label key {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_NAME_MAX {
        messages.push(format!(
            "name part must be no more than {LABEL_NAME_MAX} characters"
        ));
    }
    if !is_label_text(name) {
        messages.push(format!(
            "name part {}",
            regex_error(LABEL_KEY_MESSAGE, LABEL_KEY_REGEX, examples)
        ));
    }
    messages
}

/// Upstream's other name for a label key.
pub fn qualified_name(value: &str) -> Messages {
    label_key(value)
}

pub fn label_value(value: &str) -> Messages {
    let mut messages = Messages::new();
    max_len(value, LABEL_VALUE_MAX, &mut messages);
    if !value.is_empty() && !is_label_text(value) {
        messages.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    messages
}

pub fn in_range(value: i64, min: i64, max: i64) -> Messages {
    if (min..=max).contains(&value) {
        Messages::new()
    } else {
        vec![format!("must be between {min} and {max}, inclusive")]
    }
}

pub fn port_number(port: i64) -> Messages {
    in_range(port, 1, 65535)
}

pub fn user_id(uid: i64) -> Messages {
    in_range(uid, 0, i32::MAX.into())
}

pub fn group_id(gid: i64) -> Messages {
    in_range(gid, 0, i32::MAX.into())
}

pub fn port_name(value: &str) -> Messages {
    let mut messages = Messages::new();
    max_len(value, PORT_NAME_MAX, &mut messages);
    let mut rule = |holds: bool, text: &str| {
        if !holds {
            messages.push(text.to_owned());
        }
    };
    let allowed = !value.is_empty() && value.bytes().all(|b| lower_alphanumeric(b) || b == b'-');
    rule(
        allowed,
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    rule(
        value.bytes().any(|b| b.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    );
    rule(!value.contains("--"), "must not contain consecutive hyphens");
    rule(
        !value.starts_with('-') && !value.ends_with('-'),
        "must not begin or end with a hyphen",
    );
    messages
}

pub fn percent(value: &str) -> Messages {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Messages::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

pub fn http_header_name(value: &str) -> Messages {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Messages::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

pub fn c_identifier(value: &str) -> Messages {
    let starts = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Messages::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

pub fn env_var_name(value: &str) -> Messages {
    let mut messages = Messages::new();
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if value.is_empty() || value.starts_with(|c: char| c.is_ascii_digit()) || !value.bytes().all(inner) {
        messages.push(regex_error(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    messages.extend(parent_directory(value));
    messages
}

/// The rule since `RelaxedEnvironmentVariableValidation`.
pub fn relaxed_env_var_name(value: &str) -> Messages {
    let mut messages = Messages::new();
    if value.is_empty() {
        messages.push("environment variable name must be non-empty".to_owned());
    }
    if !value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        messages.push("a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned());
    }
    messages
}

/// The key of a ConfigMap or Secret, which becomes a file name.
pub fn config_map_key(value: &str) -> Messages {
    let mut messages = Messages::new();
    max_len(value, DNS1123_SUBDOMAIN_MAX, &mut messages);
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    {
        messages.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    messages.extend(parent_directory(value));
    messages
}

fn parent_directory(value: &str) -> Option<String> {
    match value {
        "." | ".." => Some(format!("must not be '{value}'")),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_have_no_messages() {
        assert!(dns1123_label("my-name-1").is_empty());
        assert!(dns1123_subdomain("a.b-c.d1").is_empty());
        assert!(dns1035_label("svc").is_empty());
        assert!(label_key("example.com/My_name.1").is_empty());
        assert!(label_value("").is_empty());
        assert!(port_name("http-2").is_empty());
        assert!(config_map_key(".dockerconfigjson").is_empty());
        assert!(name_is_dns_subdomain("web-", true).is_empty());
        assert!(env_var_name("A_b.c-1").is_empty());
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(
            dns1123_subdomain("A"),
            [
                r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert_eq!(label_key("/x"), ["prefix part must be non-empty"]);
        assert_eq!(path_segment_name("a/b", false), ["may not contain '/'"]);
        assert_eq!(config_map_key(".."), ["must not be '..'"]);
        assert_eq!(
            port_name("-a--"),
            [
                "must not contain consecutive hyphens",
                "must not begin or end with a hyphen"
            ]
        );
    }

    #[test]
    fn lengths_are_limited() {
        assert_eq!(
            dns1123_label(&"a".repeat(64)),
            ["must be no more than 63 characters"]
        );
        assert_eq!(
            dns1123_subdomain(&"a".repeat(254)),
            ["must be no more than 253 characters"]
        );
        assert_eq!(
            label_key(&"a".repeat(64)),
            ["name part must be no more than 63 characters"]
        );
        assert_eq!(port_name(&"a".repeat(16)), ["must be no more than 15 characters"]);
    }
}
