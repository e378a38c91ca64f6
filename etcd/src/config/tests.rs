use super::*;
use std::ffi::OsString;

fn parse(args: &[&str]) -> Result<Config> {
    Config::from_flags(flags().parse(args.iter().map(OsString::from))?)
}

#[test]
fn without_flags_it_is_etcds_default_member() {
    let config = parse(&[]).unwrap();
    assert_eq!(
        (config.name.as_str(), config.initial_cluster.as_str()),
        ("default", "default=http://localhost:2380")
    );
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    let default = Place::Tcp("127.0.0.1:2379".parse().unwrap());
    assert_eq!(config.listen_client_urls[0].place, default);
    assert_eq!((config.election_ticks(), config.min_lease_ttl()), (10, 2));
}

#[test]
fn both_spellings_and_both_dashes_are_accepted() {
    let config = parse(&[
        "-name",
        "a",
        "--data-dir=/d",
        "--initial-advertise-peer-urls",
        "http://10.0.0.1:2380",
        "--snapshot-count=10000",
    ])
    .unwrap();
    assert_eq!(
        (config.name.as_str(), config.initial_cluster.as_str()),
        ("a", "a=http://10.0.0.1:2380")
    );
}

#[test]
fn bad_usage_names_the_flag() {
    for (args, expected) in [
        (
            &["--listen-client-urls=127.0.0.1:2379"][..],
            "--listen-client-urls",
        ),
        (
            &[
                "--listen-client-urls=http://host.example:2379",
                "--advertise-client-urls=http://h:1",
            ],
            "expected IP in URL",
        ),
        (
            &["--listen-client-urls=http://0.0.0.0:2379"],
            "--advertise-client-urls is required",
        ),
        (&["--heartbeat-interval=500"], "should be at least as 5 times"),
        (&["--initial-cluster-state=old"], "--initial-cluster-state"),
        (
            &[
                "--listen-client-urls=https://127.0.0.1:1",
                "--advertise-client-urls=https://127.0.0.1:1",
            ],
            "--cert-file",
        ),
        (&["--listen-client-url=x"], "--listen-client-urls"),
        (&["--max-txn-ops=-1"], "--max-txn-ops"),
        (
            &["--listen-peer-urls=unix://localhost:2380"],
            "--listen-peer-urls",
        ),
    ] {
        let error = format!("{:#}", parse(args).err().expect("bad usage must be refused"));
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn unix_urls_name_a_socket_file() {
    let config = parse(&[
        "--listen-client-urls=unix:///run/etcd.sock,unix://localhost:1",
        "--advertise-client-urls=unix:///run/etcd.sock",
    ])
    .unwrap();
    let places: Vec<&Place> = config.listen_client_urls.iter().map(|url| &url.place).collect();
    let paths = ["/run/etcd.sock", "localhost:1"].map(|path| Place::Unix(path.into()));
    assert_eq!(places, [&paths[0], &paths[1]]);
    let error = parse(&[
        "--listen-client-urls=unixs:///s",
        "--advertise-client-urls=unixs:///s",
    ]);
    let error = format!("{:#}", error.err().unwrap());
    assert!(error.contains("--cert-file"), "{error}");
}

#[test]
fn keepalive_follows_its_flags() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let config = parse(&[]).unwrap().keepalive;
    assert_eq!(config.ping, seconds(7200).zip(seconds(20)));
    let rule = |seconds, over_tls| {
        Some(PingRule {
            min_interval: Duration::from_secs(seconds),
            over_tls,
        })
    };
    assert_eq!(config.rule, rule(5, false));
    let config = parse(&["--grpc-keepalive-interval=0", "--grpc-keepalive-min-time=1s"]).unwrap();
    assert_eq!(config.keepalive.ping, None);
    assert_eq!(config.keepalive.rule, rule(1, true));
}

#[test]
fn a_host_header_must_be_allowed() {
    let none: &[String] = &[];
    assert!(
        host_is_allowed(none, "127.0.0.1:2379")
            && host_is_allowed(none, "localhost")
            && host_is_allowed(none, "[::1]:2379")
    );
    assert!(!host_is_allowed(none, "evil.example:2379"));
    assert!(
        host_is_allowed(&["*".into()], "evil.example")
            && host_is_allowed(&["a.example".into()], "a.example:2379")
    );
}

#[test]
fn a_file_names_what_lies_deeper_as_etcds_does() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("etcd.yaml");
    let text = "\
name: a
snapshot-count: 500
experimental-snapshot-catch-up-entries: 7
discovery-config:
  token: t
  client:
    endpoints: [http://a:1, http://b:2]
    request-timeout: 2000000000
    auth: {username: u, password: p}
socket-options: {reuse-port: true}
peer-transport-security: {skip-client-san-verification: true, allowed-cn: [a, b]}
listen-client-urls: https://127.0.0.1:2379
advertise-client-urls: https://127.0.0.1:2379
client-transport-security: {cert-file: c, key-file: k, trusted-ca-file: t, allowed-cn: [x]}
";
    std::fs::write(&path, text).unwrap();
    let config = parse(&[&format!("--config-file={}", path.display())]).unwrap();
    let Discovery::Service(service) = &config.discovery else {
        panic!("a service")
    };
    assert_eq!(service.endpoints, ["http://a:1", "http://b:2"]);
    assert_eq!(service.request_timeout, Duration::from_secs(2));
    assert_eq!(service.user, Some(("u".to_owned(), "p".to_owned())));
    assert_eq!(config.allowed_peers.common_names, ["a", "b"]);
    let clients = config.client_tls.unwrap().allowed;
    assert_eq!((clients.common_names.len(), &*clients.common_names[0]), (1, "x"));
    let both = format!("{}\nclient-cert-allowed-hostname: h\n", text.trim_end());
    std::fs::write(&path, both).unwrap();
    let refused = parse(&[&format!("--config-file={}", path.display())]);
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("mutually exclusive"), "{refused}");
    std::fs::write(
        &path,
        "discovery-config: {client: {nonsense: 1}}\nof-tomorrow: [1]\nname: b",
    )
    .unwrap();
    let config = parse(&[&format!("--config-file={}", path.display())]).unwrap();
    assert_eq!(config.name, "b", "as in etcd, what is not known is passed over");
}

#[test]
fn wrong_values_are_refused_also_where_nothing_asks_for_them() {
    for (flags, want) in [
        (
            &["--auto-compaction-mode=hourly"][..],
            "unknown auto-compaction-mode \"hourly\"",
        ),
        (
            &["--tls-min-version=TLS1.4"],
            "--tls-min-version: unknown tls version",
        ),
        (
            &["--tls-max-version=TLS1.4"],
            "--tls-max-version: unknown tls version",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version",
        ),
        (
            &["--cipher-suites=NONE_SUCH"],
            "--cipher-suites: Cipher suite NONE_SUCH",
        ),
        (
            &[
                "--tls-min-version=TLS1.3",
                "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ],
            "only TLS1.3 is enabled",
        ),
        (&["--initial-cluster="], "--initial-cluster is empty"),
    ] {
        let error = parse(flags).err().expect(want);
        assert!(format!("{error:#}").contains(want), "{flags:?}: {error:#}");
    }
}

/// Names and defaults that etcd 3.6 shows; what it says nothing about is its type's zero.
const ETCD_3_6: &str = include_str!("tests/etcd_3_6_flags.txt");

/// Defaults that are others here, and why.
const OTHER_DEFAULTS: &[(&str, &str)] = &[
    ("corrupt-check-time", "the checks are on by default"),
    ("experimental-corrupt-check-time", "the checks are on by default"),
    (
        "experimental-initial-corrupt-check",
        "the checks are on by default",
    ),
    (
        "experimental-compact-hash-check-enabled",
        "the checks are on by default",
    ),
    ("initial-cluster", "made from name and peer URLs, as etcd's is"),
    ("backend-bbolt-freelist-type", "what etcd's zero stands for"),
    ("compaction-batch-limit", "what etcd's zero stands for"),
    ("compaction-sleep-interval", "what etcd's zero stands for"),
    (
        "experimental-compaction-batch-limit",
        "what etcd's zero stands for",
    ),
    (
        "experimental-compaction-sleep-interval",
        "what etcd's zero stands for",
    ),
    (
        "experimental-warning-apply-duration",
        "what etcd's zero stands for",
    ),
    (
        "experimental-warning-unary-request-duration",
        "what etcd's zero stands for",
    ),
    (
        "experimental-watch-progress-notify-interval",
        "what etcd's zero stands for",
    ),
    ("warning-unary-request-duration", "what etcd's zero stands for"),
    ("watch-progress-notify-interval", "what etcd's zero stands for"),
];

#[test]
fn every_flag_of_etcd_is_there_with_its_default() {
    let flags = flags().parse(std::iter::empty()).unwrap();
    let ours: std::collections::BTreeMap<&str, String> = flags.each().collect();
    let mut different = Vec::new();
    for line in ETCD_3_6.lines() {
        let (name, default) = line.split_once(' ').unwrap_or((line, ""));
        let Some(value) = ours.get(name) else {
            // Removed ones are taken and do nothing.
            assert!(
                super::flags().parse([format!("--{name}=1").into()]).is_ok(),
                "--{name}"
            );
            continue;
        };
        if value.trim_matches(['[', ']']) != default {
            different.push((name, value.clone(), default));
        }
    }
    let unexplained = different
        .iter()
        .filter(|(name, ..)| !OTHER_DEFAULTS.iter().any(|(known, _)| known == name));
    assert_eq!(
        unexplained.collect::<Vec<_>>(),
        Vec::<&(&str, String, &str)>::new()
    );
    for (name, _) in OTHER_DEFAULTS {
        assert!(
            different.iter().any(|(found, ..)| found == name),
            "--{name} is etcd's"
        );
    }
}

#[test]
fn corruption_checks_are_on_until_they_are_switched_off() {
    let config = parse(&[]).unwrap();
    assert!(config.features.initial_corrupt_check && config.features.compact_hash_check);
    assert_eq!(config.corrupt_check, Duration::from_secs(3600));
    assert_eq!(config.compact_hash_check, Duration::from_secs(60));
    let config = parse(&[
        "--feature-gates=CompactHashCheck=true,AllAlpha=false",
        "--corrupt-check-time=0s",
    ])
    .unwrap();
    assert!(!config.features.initial_corrupt_check && config.features.compact_hash_check);
    assert!(config.corrupt_check.is_zero());
    let both = parse(&[
        "--experimental-initial-corrupt-check=false",
        "--feature-gates=InitialCorruptCheck=true",
    ]);
    let error = both.err().unwrap().to_string();
    assert!(error.starts_with("cannot specify both flags"), "{error}");
}
