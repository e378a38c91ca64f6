//! What works on files is etcdutl's: etcdctl hands over to it, as that of etcd 3.5 did.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::exit::Exit;

const NAME: &str = "etcdutl";

/// Becomes etcdutl, or returns why it could not.
pub fn hand_over(command: &str, words: &[String]) -> Exit {
    eprintln!("Deprecated: Use `{NAME} {command}` instead.\n");
    let program = beside().unwrap_or_else(|| NAME.into());
    let error = Command::new(&program).args(command.split(' ')).args(words).exec();
    let program = program.display();
    Exit::error(format!(
        "cannot run {program}: {error}; {NAME} has to lie beside etcdctl or in a folder of PATH"
    ))
}

fn beside() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name(NAME);
    program.is_file().then_some(program)
}
