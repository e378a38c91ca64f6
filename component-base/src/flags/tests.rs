use super::*;

fn set() -> FlagSet {
    FlagSet::new("kube-test", "Tests.")
        .string("name", "default", "a name")
        .string("kubeconfig", "", "a file")
        .bool("leader-elect", true, "elect")
        .bool("allow-privileged", false, "privileged")
        .int("secure-port", 6443, "port")
        .duration("event-ttl", "1h0m0s", "ttl")
        .strings("etcd-servers", "", "servers")
        .map("feature-gates", "", "gates")
        .string("old", "", "old one")
        .deprecated("old", "use --name")
        .removed("apiserver-count", true, "leases are used")
        .removed("enable-swagger-ui", false, "gone")
}

fn parse(args: &[&str]) -> Result<Flags, UsageError> {
    set().parse(args.iter().map(OsString::from))
}

fn ok(args: &[&str]) -> Flags {
    parse(args).unwrap()
}

fn error(args: &[&str]) -> String {
    parse(args).unwrap_err().to_string()
}

#[test]
fn both_spellings_of_a_value_are_read() {
    for args in [&["--name", "x"][..], &["--name=x"]] {
        assert_eq!(ok(args).string("name"), "x");
    }
    assert_eq!(ok(&["--name="]).string("name"), "");
    assert_eq!(ok(&["--name", "-x"]).string("name"), "-x");
    assert_eq!(
        ok(&["--name", "--secure-port=1"]).string("name"),
        "--secure-port=1"
    );
    assert_eq!(ok(&["--secure-port=-1"]).int("secure-port"), -1);
    assert!(ok(&["--name=default"]).is_set("name"));
    assert!(!ok(&[]).is_set("name"));
}

#[test]
fn a_bare_boolean_never_eats_the_next_word() {
    let flags = ok(&["--allow-privileged", "--leader-elect=false"]);
    assert!(flags.bool("allow-privileged") && !flags.bool("leader-elect"));
    let message = error(&["--allow-privileged", "true"]);
    assert_eq!(
        message,
        "\"kube-test\" does not take any arguments, got [\"true\"]"
    );
}

#[test]
fn underscores_are_dashes() {
    assert!(ok(&["--allow_privileged=true"]).bool("allow-privileged"));
    assert_eq!(ok(&["--name=a_b"]).string("name"), "a_b");
}

#[test]
fn lists_append_over_commas_and_repetition() {
    let flags = ok(&[
        "--etcd-servers=a,b",
        "--etcd-servers",
        "c",
        "--feature-gates=A=true,B=false",
        "--feature-gates=C=true",
    ]);
    assert_eq!(flags.strings("etcd-servers"), ["a", "b", "c"]);
    assert_eq!(
        flags.map("feature-gates").into_iter().collect::<Vec<_>>(),
        [
            ("A".into(), "true".into()),
            ("B".into(), "false".into()),
            ("C".into(), "true".into())
        ]
    );
    assert_eq!(
        ok(&["--etcd-servers=\"a,b\",c"]).strings("etcd-servers"),
        ["a,b", "c"]
    );
}

#[test]
fn the_last_of_repeated_single_values_wins() {
    assert_eq!(ok(&["--name=a", "--name=b"]).string("name"), "b");
    assert_eq!(ok(&["--v=2", "-v=4"]).int("v"), 4);
    assert_eq!(ok(&["-v", "3"]).int("v"), 3);
}

#[test]
fn values_of_the_wrong_type_are_refused_with_pflags_words() {
    assert_eq!(
        error(&["--secure-port=x"]),
        "invalid argument \"x\" for \"--secure-port\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
    );
    assert_eq!(
        error(&["--leader-elect=maybe"]),
        "invalid argument \"maybe\" for \"--leader-elect\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax"
    );
    assert_eq!(
        error(&["--event-ttl=5"]),
        "invalid argument \"5\" for \"--event-ttl\" flag: time: missing unit in duration \"5\""
    );
    assert!(error(&["--feature-gates=A"]).contains("malformed pair"));
    assert_eq!(error(&["--name"]), "flag needs an argument: --name");
}

#[test]
fn an_unknown_flag_is_named_with_the_nearest() {
    assert_eq!(error(&["--nonsense-zzz=1"]), "unknown flag: --nonsense-zzz");
    assert_eq!(
        error(&["--kubeconfg=x"]),
        "unknown flag: --kubeconfg\n\nDid you mean --kubeconfig?"
    );
    assert_eq!(error(&["-x"]), "unknown shorthand flag: 'x' in -x");
}

#[test]
fn removed_and_deprecated_flags_warn() {
    let flags = ok(&[
        "--apiserver-count=3",
        "--enable-swagger-ui=true",
        "--logtostderr",
        "--old=x",
    ]);
    assert_eq!(flags.warnings().len(), 4);
    assert!(
        flags
            .warnings()
            .iter()
            .any(|line| line.contains("--apiserver-count has been removed"))
    );
    assert!(
        flags
            .warnings()
            .iter()
            .any(|line| line == "Flag --old has been deprecated, use --name")
    );
    assert_eq!(flags.string("old"), "x");
}

#[test]
fn single_dashes_are_read_where_asked_for() {
    let flags = set()
        .single_dash_long()
        .parse(["-name=x", "-secure-port", "1"].map(OsString::from))
        .unwrap();
    assert_eq!((flags.string("name"), flags.int("secure-port")), ("x", 1));
}

#[test]
fn values_are_listed_as_pflag_prints_them() {
    let flags = ok(&["--event-ttl=90m", "--etcd-servers=a,b"]);
    let listed: BTreeMap<_, _> = flags.each().collect();
    assert_eq!(listed["event-ttl"], "1h30m0s");
    assert_eq!(listed["etcd-servers"], "[a,b]");
    assert!(!listed.contains_key("apiserver-count"));
}

#[test]
fn help_lists_flags_with_type_and_default() {
    let Err(UsageError::Help(text)) = parse(&["--help"]) else {
        panic!("no help")
    };
    assert!(text.contains("--secure-port int"), "{text}");
    assert!(text.contains("(default 6443)"));
    assert!(!text.contains("swagger"));
}

#[test]
fn a_tool_may_take_words_between_its_flags() {
    let flags = FlagSet::plain("pki verify", "")
        .string("ca", "", "")
        .with_arguments()
        .parse(["a.crt", "--ca", "x", "b.crt"].map(OsString::from))
        .unwrap();
    assert_eq!(flags.arguments(), ["a.crt", "b.crt"]);
    assert_eq!(flags.string("ca"), "x");
}
