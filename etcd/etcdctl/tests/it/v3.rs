//! Transcripts of the v3 face.

use crate::compare::Pair;
use crate::programs::{Rival, our_etcd};

/// Commands that both answer in the same words. State goes on from line to line.
const KEYS: &[&str] = &[
    "put a 1",
    "put a '<x>&\"é' --prev-kv",
    "put 'with blank' 'x y' -w json",
    "put a 3 -w fields --prev-kv",
    "get a",
    "get a -w json",
    "get a -w fields",
    "get a --hex",
    "get a -w table",
    "get a -w yaml",
    "get a --print-value-only",
    "get a --keys-only -w json",
    "get zz -w json",
    "get '' --prefix",
    "get '' --from-key --limit 1 -w json",
    "get a b",
    "get a --rev 2",
    "get a --rev 9999",
    "get '' --prefix --sort-by MODIFY --order DESCEND",
    "get '' --prefix --sort-by VALUE --order ASCEND",
    "get a --order q",
    "get a --sort-by q",
    "get a --consistency s",
    "get a --consistency z",
    "get x y --prefix",
    "get",
    "get --prefix --from-key x",
    "put",
    "put a b --lease zz",
    "put a b --lease 77",
    "put a b --ignore-value",
    "put none --ignore-value",
    "put a --ignore-value",
    "del none",
    "del a --prev-kv",
    "del",
    "del a b c",
    "del '' --prefix --prev-kv -w json",
    "put k1 v",
    "put k2 v",
    "del k --prefix -w fields",
    "compaction 3",
    "compaction 3",
    "compaction 999",
    "compaction x",
    "compaction",
    "get a --rev 2",
    "watch a --rev 1",
    "watch",
    "watch a b --prefix --rev 5",
    "watch --",
    "lease grant",
    "lease grant x",
    "lease grant 100",
    "lease revoke 123",
    "lease revoke zz",
    "lease timetolive 1",
    "lease timetolive 1 -w json",
    "lease keep-alive --once 1",
    "lease keep-alive 1",
    "lease keep-alive",
    "member remove x",
    "member remove 123",
    "member add",
    "member add a",
    "member add a http://127.0.0.1:1",
    "member update 1",
    "member update x --peer-urls http://127.0.0.1:1",
    "alarm list",
    "alarm list x",
    "alarm disarm",
    "role list",
    "role get root",
    "role grant-permission r",
    "role grant-permission r foo k",
    "role revoke-permission r",
    "user list",
    "user get b",
    "user add :x",
    "user delete nouser",
    "user grant-role a",
    "elect",
    "elect x",
    "elect a b -l",
    "lock",
    "check perf --load z",
    "make-mirror",
    "move-leader",
    "move-leader x",
    "txn x",
    "endpoint hashkv -w protobuf",
    "get a --cert /x --key /nonexistent",
    "get a --cert /nonexistent",
    "get a --cacert ''",
    "lock l echo hi",
    "lock l nonexistent-program",
];

const TXNS: &[&str] = &[
    "mod(\"a\") > \"0\"\n\nput b \"x y\"\nget b\ndel q\n\nget a\n\n",
    "val(\"b\") = \"x y\"\nver(\"b\") = \"1\"\n\nget b --keys-only\n\nput b no\n\n",
    "create(\"b\") = \"0\"\n\n\nput c \"quoted\"\nget c\n\n",
    "mod(a) > \"0\"\n\n",
    "foo(\"a\") > \"0\"\n\n",
    "mod(\"a\") > \"x\"\n\n",
    "mod\n",
    "\nput\n",
    "\nput a\n",
    "\nfoo bar\n",
    "\n",
    "",
];

/// Commands whose output 3.5 and 3.6 agree on, and 3.4 not.
const SINCE_35: &[&str] = &[
    "member list",
    "member list -w json",
    "get a --count-only -w fields",
    "get a --count-only",
    "get --keys-only --count-only x",
    "auth status",
    "auth status -w json",
    "endpoint health",
    "endpoint health -w json",
    "lock l sh -- -c 'echo \"$ETCD_LOCK_KEY\"; exit 7'",
];

/// Errors of usage: 3.6 has other usage texts, and says what is wrong once.
const USAGE: &[&str] = &[
    "get a --limit",
    "get a --bogus",
    "get -z",
    "get a --limit x",
    "get a -w",
    "lease grnt",
    "bogus",
];

fn transcript(pair: &Pair) {
    KEYS.iter().for_each(|line| pair.same(line));
    TXNS.iter().for_each(|txn| pair.same_with("txn", txn));
    pair.same_with("txn -w fields", TXNS[0]);
    pair.same_with("txn -i", "\n\n\n");
    pair.same_with("put stdin", "from stdin\n");
    pair.same("get stdin");
    pair.same("watch b --rev 4 -- false");
}

fn transcript_since_35(pair: &Pair) {
    transcript(pair);
    pair.same_with("txn -w json", TXNS[0]);
    pair.same_with("watch -i", "bogus\n\nwatch\n");
    SINCE_35.iter().for_each(|line| pair.same(line));
}

/// Lines of the usage text, and the error that 3.5 repeats.
fn usage(line: &str) -> bool {
    let shown = line.starts_with([' ', '\t']) || line.ends_with(':') || line.is_empty();
    shown || line.starts_with("Error: ")
}

#[test]
fn ours_and_3_5_say_the_same_of_3_5() {
    let (Some(server), Some(rival)) = (Rival::V35.etcd(), Rival::V35.etcdctl()) else {
        return;
    };
    let pair = Pair::new(&server, &rival, 3, &[]);
    transcript_since_35(&pair);
    let pair = pair.ignoring(usage);
    USAGE.iter().for_each(|line| pair.same(line));
    pair.finish();
}

#[test]
fn ours_and_3_4_say_the_same_of_3_4() {
    let (Some(server), Some(rival)) = (Rival::V34.etcd(), Rival::V34.etcdctl()) else {
        return;
    };
    let pair = Pair::new(&server, &rival, 3, &[]).without_logs();
    transcript(&pair);
    pair.finish();
}

#[test]
fn ours_and_3_5_say_the_same_of_our_server() {
    let (Some(server), Some(rival)) = (our_etcd(), Rival::V35.etcdctl()) else {
        return;
    };
    let pair = Pair::new(&server, &rival, 3, &[]);
    transcript_since_35(&pair);
    pair.finish();
}

#[test]
fn ours_and_3_4_say_the_same_of_our_server() {
    let (Some(server), Some(rival)) = (our_etcd(), Rival::V34.etcdctl()) else {
        return;
    };
    let pair = Pair::new(&server, &rival, 3, &[]).without_logs();
    transcript(&pair);
    pair.finish();
}
