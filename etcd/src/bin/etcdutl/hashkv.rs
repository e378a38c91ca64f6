//! `etcdutl hashkv`: what `HashKV` of the member would answer.

use std::path::Path;

use component_base::flags::Flags;
use etcd::snapshot::read;
use serde_json::json;

use crate::command::{Command, Failure, one_argument};
use crate::printer::{self, Answer};

pub const COMMAND: Command = Command {
    path: &["hashkv"],
    usage: " <filename>",
    about: "Prints the KV history hash of a given file",
    flags: |set| set.int("rev", 0, "maximum revision to hash (default: latest revision)"),
    required: &[],
    run,
};

fn run(flags: &Flags) -> Result<(), Failure> {
    let file = one_argument(flags, "hashkv")?;
    printer::check(flags)?;
    let database = read::open(Path::new(file), true)?;
    let hash = read::hash_kv(&database, flags.int("rev"))?;
    let cells = [
        hash.hash.to_string(),
        hash.revision.to_string(),
        hash.compacted.to_string(),
    ];
    let [of_keys, revision, compacted] = cells.clone();
    let answer = Answer {
        headers: &["hash", "hash revision", "compact revision"],
        cells: cells.to_vec(),
        fields: vec![
            ("Hash", of_keys),
            ("Hash revision", revision),
            ("Compact revision", compacted),
        ],
        json: vec![
            ("hash", json!(hash.hash)),
            ("hashRevision", json!(hash.revision)),
            ("compactRevision", json!(hash.compacted)),
        ],
    };
    printer::print(flags, &answer);
    Ok(())
}
