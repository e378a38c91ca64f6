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
    assert_eq!(config.listen_client_urls[0].address.to_string(), "127.0.0.1:2379");
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
    ] {
        let error = format!("{:#}", parse(args).err().expect("bad usage must be refused"));
        assert!(error.contains(expected), "{args:?}: {error}");
    }
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
