use super::*;

const SIMPLE: &str = "
apiVersion: v1
kind: Config
clusters:
- name: k
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority-data: Q0E=}
users:
- name: admin
  user: {token: abc}
contexts:
- name: admin@k
  context: {cluster: k, user: admin, namespace: dev}
current-context: admin@k
";

fn parse_at(text: &str, folder: &Path) -> Result<RestConfig, ConfigError> {
    parse(text, &folder.join("admin.conf"))
}

#[test]
fn a_kubeconfig_tells_server_identity_and_namespace() {
    let config = parse_at(SIMPLE, Path::new("/etc")).unwrap();
    assert_eq!(
        (config.server.host.as_str(), config.server.port),
        ("10.0.0.1", 6443)
    );
    assert!(matches!(&config.ca, Some(Pem::Data(d)) if d == b"CA"));
    assert_eq!(config.namespace.as_deref(), Some("dev"));
    let header = config.credentials.authorization().unwrap().unwrap();
    assert_eq!(header.to_str().unwrap(), "Bearer abc");
}

#[test]
fn files_are_relative_to_the_kubeconfig() {
    let folder = std::env::temp_dir().join(format!("kubeconfig-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["c.crt", "c.key", "t"] {
        std::fs::write(folder.join(file), "one").unwrap();
    }
    let text = SIMPLE.replace(
        "{token: abc}",
        "{client-certificate: c.crt, client-key: c.key, tokenFile: t}",
    );
    let config = parse_at(&text, &folder).unwrap();
    assert!(matches!(&config.client_cert, Some((Pem::File(c), Pem::File(_))) if *c == folder.join("c.crt")));
    assert_eq!(
        config
            .credentials
            .authorization()
            .unwrap()
            .unwrap()
            .to_str()
            .unwrap(),
        "Bearer one"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

fn message(text: &str) -> String {
    parse_at(text, Path::new("/etc")).unwrap_err().to_string()
}

#[test]
fn errors_name_the_file_and_the_field() {
    assert_eq!(
        message(&SIMPLE.replace("current-context: admin@k", "current-context: x")),
        "/etc/admin.conf: current-context: context \"x\" does not exist (there are: admin@k)"
    );
    assert_eq!(
        message(&SIMPLE.replace("cluster: k,", "cluster: z,")),
        "/etc/admin.conf: clusters: cluster \"z\" does not exist"
    );
    assert!(
        message(&SIMPLE.replace("{token: abc}", "{exec: {command: aws}}"))
            .starts_with("/etc/admin.conf: users[admin].user.exec: ")
    );
    assert!(
        message(&SIMPLE.replace("Q0E=", "'%%'"))
            .starts_with("/etc/admin.conf: clusters[k].cluster.certificate-authority-data: is not base64")
    );
    assert!(
        message(&SIMPLE.replace("{token: abc}", "{client-certificate-data: Q0E=}"))
            .contains("client-key is not")
    );
    assert!(message(&SIMPLE.replace("https://10", "ftp://10")).contains("clusters[k].cluster.server"));
    assert!(message("clusters: {").starts_with("/etc/admin.conf: "));
    assert!(message("kind: Pod").contains("is not a kubeconfig"));
    assert!(
        load(Path::new("/nonexistent/x.conf"))
            .unwrap_err()
            .to_string()
            .starts_with("/nonexistent/x.conf: ")
    );
}

#[test]
fn an_empty_file_is_an_error_and_not_a_default_server() {
    assert!(parse_at("", Path::new("/etc")).is_err());
}

#[test]
fn server_urls_in_all_their_forms() {
    let server = |url| Server::parse(url).map(|s| (s.tls, s.host, s.port, s.prefix));
    assert_eq!(
        server("https://[::1]:6443/").unwrap(),
        (true, "::1".into(), 6443, String::new())
    );
    assert_eq!(
        server("https://lb/k8s/clusters/c1/").unwrap(),
        (true, "lb".into(), 443, "/k8s/clusters/c1".into())
    );
    assert_eq!(
        server("127.0.0.1:8080").unwrap(),
        (false, "127.0.0.1".into(), 8080, String::new())
    );
    assert!(server("https://").is_err());
}

#[test]
fn a_token_never_shows_in_debug_output() {
    let config = parse_at(SIMPLE, Path::new("/etc")).unwrap();
    assert!(!format!("{:?}", config.credentials).contains("abc"));
}
