//! Two servers of one make: theirs hears every command from the real etcdctl, ours from ours, and both must say the same.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::programs::{Output, command, ours, run};
use crate::server::Server;

pub struct Pair {
    theirs: Server,
    ours: Server,
    rival: PathBuf,
    api: u8,
    /// Lines that the two are known to differ in.
    differs: fn(&str) -> bool,
    /// Log lines of 3.4 have another shape.
    logs: bool,
    differences: RefCell<Vec<String>>,
}

impl Pair {
    pub fn new(server: &Path, rival: &Path, api: u8, extra: &[&str]) -> Pair {
        Pair {
            theirs: Server::start(server, extra),
            ours: Server::start(server, extra),
            rival: rival.to_owned(),
            api,
            differs: |_| false,
            logs: true,
            differences: RefCell::default(),
        }
    }

    pub fn without_logs(mut self) -> Self {
        self.logs = false;
        self
    }

    pub fn ignoring(mut self, differs: fn(&str) -> bool) -> Self {
        self.differs = differs;
        self
    }

    fn endpoint(&self, server: &Server) -> String {
        if self.api == 2 {
            server.url()
        } else {
            server.endpoint()
        }
    }

    pub fn same(&self, line: &str) {
        self.same_with(line, "");
    }

    /// Words are parted by blanks; `'` holds some together.
    pub fn same_with(&self, line: &str, stdin: &str) {
        let words = words(line);
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let theirs = run(
            &mut command(&self.rival, self.api, &self.endpoint(&self.theirs), &args),
            stdin,
        );
        let own = run(
            &mut command(&ours(), self.api, &self.endpoint(&self.ours), &args),
            stdin,
        );
        let (theirs, own) = (
            self.readable(&theirs, &self.theirs),
            self.readable(&own, &self.ours),
        );
        if own != theirs {
            let difference = format!("etcdctl {line}\nours:   {own:?}\ntheirs: {theirs:?}\n");
            self.differences.borrow_mut().push(difference);
        }
    }

    /// All differences at once: what one command leaves behind explains the next.
    pub fn finish(self) {
        let differences = self.differences.take();
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// Exit code and text, with what must differ between two runs made equal.
    fn readable(&self, output: &Output, server: &Server) -> String {
        // IDs first: a port's digits may stand in one.
        let plain = |bytes: &[u8]| {
            let text = same_ids(&escape(bytes)).replace(&server.port.to_string(), "PORT");
            text.replace(&server.peer_port.to_string(), "PEER")
        };
        let keep = |line: &&str| !(self.differs)(line);
        let stdout = plain(&output.stdout);
        let stderr = plain(&output.stderr);
        let stderr: Vec<String> = stderr
            .lines()
            .filter(keep)
            .filter_map(|line| self.log_line(line))
            .collect();
        let stdout: Vec<&str> = stdout.lines().filter(keep).collect();
        format!(
            "{:?}\n{}\n--\n{}",
            output.code,
            stdout.join("\n"),
            stderr.join("\n")
        )
    }

    fn log_line(&self, line: &str) -> Option<String> {
        let Ok(log) = serde_json::from_str::<serde_json::Value>(line) else {
            return Some(line.to_owned());
        };
        if !line.starts_with("{\"level\"") {
            return Some(line.to_owned());
        }
        self.logs
            .then(|| format!("{} {} {}", log["level"], log["msg"], log["error"]))
    }
}

/// Bytes that are no text stay visible.
fn escape(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::new(), |text, chunk| {
        let invalid: String = chunk
            .invalid()
            .iter()
            .map(|byte| format!("\\x{byte:02x}"))
            .collect();
        text + chunk.valid() + &invalid
    })
}

/// Random 64 bits have fewer digits once in 65,536 times.
const ID_DIGITS: usize = 12;

/// Cluster, member and lease IDs are long numbers; times follow `took`; indexes of v2 errors stand in brackets.
fn same_ids(text: &str) -> String {
    let mut same = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        if length >= ID_DIGITS {
            same.push_str("ID");
            rest = &rest[length..];
        } else if length > 0 {
            same.push_str(&rest[..length]);
            rest = &rest[length..];
        } else {
            same.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    let cut = |line: &str| match line.split_once("took") {
        Some((before, _)) => format!("{before}took"),
        None => line.to_owned(),
    };
    same.lines().map(cut).collect::<Vec<_>>().join("\n")
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn what_differs_by_nature_is_made_equal() {
    assert_eq!(
        same_ids("lease 7090a220ad779007 x took = 3ms\n12345"),
        "lease ID x took\n12345"
    );
    assert_eq!(words("put a 'x y' ''"), ["put", "a", "x y", ""]);
    assert_eq!(escape(b"a\xff"), "a\\xff");
}
