//! Transcripts of the v2 face, on etcd 3.4 with `--enable-v2`.

use crate::compare::Pair;
use crate::programs::Rival;

const COMMANDS: &[&str] = &[
    "set /a b",
    "get /a",
    "get a",
    "-o extended get /a",
    "-o json get /a",
    "-o yaml get /a",
    "-o json set /a c",
    "-o extended set /a d",
    "mk /a x",
    "mk /d/x 1",
    "mk --in-order /q v",
    "ls --sort",
    "ls -r -p --sort /",
    "-o json ls --recursive --sort",
    "-o extended ls /d",
    "ls /a",
    "ls /nope",
    "set /ttl v --ttl 1000",
    "-o extended get /ttl",
    "set /s 1 --swap-with-value 3",
    "set /s 1",
    "set /s 2 --swap-with-value 3",
    "set /s 2 --swap-with-value 1",
    "set /s 2 --swap-with-index 3",
    "rm /s --with-value 9",
    "rm --with-value 2 /s",
    "-o json rm /a",
    "rm /d",
    "rm /d -r",
    "mkdir /m",
    "mkdir /m",
    "-o json mkdir /n",
    "setdir /m --ttl 30",
    "setdir /o --ttl 1000",
    "updatedir /m",
    "updatedir /nope",
    "update /nope 1",
    "update /ttl 1",
    "get /m",
    "get",
    "get /zz",
    "-o json get /zz",
    "rmdir /m",
    "rmdir /nope",
    "rm --dir /n",
    "set",
    "mk",
    "update",
    "set -- /dash -v",
    "get '/with blank %é'",
    "set '/with blank %é' x",
    "get '/with blank %é'",
    "watch /ttl --after-index 1",
    "watch -r --after-index 1 /ttl",
    "watch",
    "member list",
    "member list x",
    "member remove",
    "member remove zz",
    "member remove it",
    "member add",
    "member update a",
    "member bogus",
    "member",
    "member add --help",
    "cluster-health",
    "bogus",
    "get --bogus x",
    "get --help",
    "set --help",
    "rmdir --help",
    "set /a --ttl x",
    "--endpoints http://127.0.0.1:1 get /a",
    "--endpoints http://127.0.0.1:1 cluster-health",
    "--endpoints http://127.0.0.1:1 member list",
    "--no-sync get /ttl",
    "--debug get /ttl",
    "--debug set /ttl 'b c'",
    "set /stdin",
];

/// Times to live end at other moments, and members stand in the order of their random IDs.
fn differs(line: &str) -> bool {
    line.contains("expiration") || line.starts_with("ETCD_INITIAL_CLUSTER=")
}

#[test]
fn ours_and_3_4_say_the_same() {
    let (Some(server), Some(rival)) = (Rival::V34.etcd(), Rival::V34.etcdctl()) else {
        return;
    };
    let pair = Pair::new(&server, &rival, 2, &["--enable-v2"]).ignoring(differs);
    COMMANDS
        .iter()
        .for_each(|line| pair.same_with(line, "from stdin\n"));
    pair.same("member add n http://127.0.0.1:9");
    pair.finish();
}
