use super::*;

fn root() -> Command<&'static str> {
    let get = Command::new("get [options] <key>", "Gets the key", "get").flags(vec![
        Flag::int("limit", "0", "Maximum"),
        Flag::bool("prefix", "Prefix"),
    ]);
    let lease = Command::group(
        "lease <subcommand>",
        "Lease related commands",
        vec![
            Command::new("grant <ttl>", "Creates leases", "grant"),
            Command::new("list", "Lists", "list"),
        ],
    );
    Command::group("etcdctl", "A client.", vec![get, lease]).persistent(vec![
        Flag::string("write-out", "simple", "format").short('w'),
        Flag::new(Kind::Strings, "endpoints", "127.0.0.1:2379", "gRPC endpoints"),
        Flag::bool("hex", "hex"),
    ])
}

fn version() -> Version {
    Version {
        binary: "3.6.8",
        api: "3.6",
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn read(text: &str) -> (&'static str, Flags, Vec<String>) {
    let root = root();
    let invocation = parse(&root, &version(), &words(text))
        .map_err(|exit| exit.code)
        .unwrap();
    (invocation.run, invocation.flags, invocation.args)
}

#[test]
fn flags_stand_anywhere_in_every_spelling() {
    for text in [
        "get a --limit 5 -w json",
        "-wjson get --limit=5 a",
        "--endpoints x get -w=json a --limit 0x5",
    ] {
        let (run, flags, args) = read(text);
        assert_eq!(
            (run, flags.int("limit"), flags.string("write-out")),
            ("get", 5, "json"),
            "{text}"
        );
        assert_eq!(args, ["a"]);
    }
    let (_, flags, args) = read("get --prefix a -- -b --limit");
    assert!(flags.bool("prefix") && flags.changed("prefix") && !flags.changed("limit"));
    assert_eq!(args, ["a", "-b", "--limit"]);
}

#[test]
fn slices_append_and_split() {
    let (_, flags, _) = read("get a --endpoints=a,b --endpoints c");
    assert_eq!(flags.strings("endpoints"), ["a", "b", "c"]);
    assert_eq!(flags.display("endpoints"), "[a,b,c]");
}

#[test]
fn a_unique_prefix_names_a_command() {
    assert_eq!(read("ge a").0, "get");
    assert_eq!(read("le gr 5").0, "grant");
    // A flag's value is no name.
    assert_eq!(read("--endpoints get lease list").0, "list");
}

#[test]
fn mistakes_are_told_with_pflags_words() {
    let flags: Vec<Flag> = root()
        .persistent
        .into_iter()
        .chain(root().subcommands.remove(0).flags)
        .collect();
    let refused = |text: &str| super::flags::parse(&flags, &words(text)).err().unwrap();
    assert_eq!(refused("--bogus"), "unknown flag: --bogus");
    assert_eq!(refused("-z x"), "unknown shorthand flag: 'z' in -z");
    assert_eq!(refused("--limit"), "flag needs an argument: --limit");
    assert_eq!(refused("-w"), "flag needs an argument: 'w' in -w");
    assert_eq!(refused("---x"), "bad flag syntax: ---x");
    assert_eq!(
        refused("--limit x"),
        "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
    );
}

#[test]
fn usage_has_etcdctls_shape() {
    let root = root();
    let found = find(&root, &words("lease")).unwrap_or_else(|word| panic!("{word}"));
    assert_eq!(
        usage::text(&found, &version()),
        "NAME:\n  lease - Lease related commands\n\nUSAGE:\n  etcdctl lease <subcommand> [flags]\n\n\
         API VERSION:\n  3.6\n\nCOMMANDS:\n  grant\tCreates leases\n  list\tLists\n\n\
         OPTIONS:\n  -h, --help[=false]\thelp for lease\n\n\
         GLOBAL OPTIONS:\n      --endpoints=[127.0.0.1:2379]\tgRPC endpoints\n      --hex[=false]\t\t\thex\n  \
         -w, --write-out=\"simple\"\t\tformat\n\n"
    );
}

#[test]
fn near_names_are_suggested() {
    assert_eq!(suggest::suggestions("gat", &["get", "del", "lease"]), ["get"]);
    assert_eq!(suggest::suggestions("leas", &["get", "lease"]), ["lease"]);
    assert!(suggest::suggestions("bogus", &["get", "lease"]).is_empty());
}
