//! What one client does alone: streams, signals, failover, files. On our server, or on any that is there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::programs::{Rival, Running, command, our_etcd, ours, run};
use crate::server::Server;

fn any_etcd() -> Option<PathBuf> {
    Rival::V35.etcd().or_else(|| Rival::V34.etcd()).or_else(our_etcd)
}

fn start(server: &Server, args: &[&str]) -> Running {
    Running::start(&mut command(&ours(), 3, &server.endpoint(), args))
}

#[test]
fn a_dead_endpoint_delays_nothing() {
    let Some(etcd) = any_etcd() else { return };
    let server = Server::start(&etcd, &[]);
    let endpoints = format!("127.0.0.1:{},{}", free_port::free_port(), server.endpoint());
    let put = run(&mut command(&ours(), 3, &endpoints, &["put", "a", "1"]), "");
    assert_eq!(
        (put.code, put.text().as_str()),
        (Some(0), "OK\n"),
        "{}",
        put.errors()
    );
    let health = run(
        &mut command(
            &ours(),
            3,
            &endpoints,
            &["endpoint", "health", "--command-timeout=2s"],
        ),
        "",
    );
    assert_eq!(health.code, Some(1));
    assert!(
        health
            .text()
            .contains(&format!("{} is healthy", server.endpoint()))
    );
    assert!(
        health
            .errors()
            .contains("is unhealthy: failed to commit proposal: context deadline exceeded")
    );
    assert!(health.errors().ends_with("Error: unhealthy cluster\n"));
}

#[test]
fn a_script_gives_its_password_on_stdin() {
    let Some(etcd) = any_etcd() else { return };
    let server = Server::start(&etcd, &[]);
    for line in ["user add root:pw", "user grant-role root root", "auth enable"] {
        let args: Vec<&str> = line.split(' ').collect();
        let answer = run(&mut command(&ours(), 3, &server.endpoint(), &args), "");
        assert_eq!(answer.code, Some(0), "{}", answer.errors());
    }
    let list = command(
        &ours(),
        3,
        &server.endpoint(),
        &["user", "list", "--user", "root"],
    );
    // Without a terminal, wherever the test runs.
    let mut detached = Command::new("setsid");
    detached
        .arg("--wait")
        .arg(list.get_program())
        .args(list.get_args());
    detached.envs(list.get_envs().filter_map(|(name, value)| Some((name, value?))));
    detached
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let answer = run(&mut detached, "pw\n");
    assert_eq!(answer.code, Some(0), "{}", answer.errors());
    assert!(answer.text().ends_with("\nroot\n"), "{}", answer.text());
}

#[test]
fn nobody_there_is_told_at_the_deadline() {
    let endpoint = format!("127.0.0.1:{}", free_port::free_port());
    let get = run(
        &mut command(&ours(), 3, &endpoint, &["get", "a", "--command-timeout=300ms"]),
        "",
    );
    assert_eq!(get.code, Some(1));
    assert!(get.errors().contains("connection refused"), "{}", get.errors());
    assert!(get.errors().ends_with("Error: context deadline exceeded\n"));
}

#[test]
fn a_watch_prints_events_as_they_come_and_runs_its_command() {
    let Some(etcd) = any_etcd() else { return };
    let server = Server::start(&etcd, &[]);
    server.ok(&["put", "w1", "first"]);
    let watch = start(&server, &["watch", "w", "--prefix", "--rev=2"]);
    watch.wait_for("PUT\nw1\nfirst\n");
    server.ok(&["put", "w2", "second"]);
    server.ok(&["del", "w1"]);
    watch.wait_for("PUT\nw2\nsecond\nDELETE\nw1\n\n");
    let script = "echo ran $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
    let exec = start(&server, &["watch", "w2", "--rev=2", "--", "sh", "-c", script]);
    exec.wait_for("PUT\nw2\nsecond\nran \"PUT\" \"w2\" \"second\"\n");
}

#[test]
fn interactive_watches_run_side_by_side() {
    let Some(etcd) = any_etcd() else { return };
    let server = Server::start(&etcd, &[]);
    let mut watch = start(&server, &["watch", "-i"]);
    watch.say("watch a\nwatch b --prefix --prev-kv\n");
    server.ok(&["put", "a", "0"]);
    // The watches begin when the server has them; later puts are seen for sure.
    let start = std::time::Instant::now();
    while !(watch.so_far().contains("a\n") && watch.so_far().contains("b1\n")) {
        assert!(start.elapsed() < crate::programs::PATIENCE, "{}", watch.so_far());
        server.ok(&["put", "a", "1"]);
        server.ok(&["put", "b1", "2"]);
    }
}

#[test]
fn a_lock_is_held_until_a_signal_and_passed_on() {
    let Some(etcd) = any_etcd() else { return };
    let server = Server::start(&etcd, &[]);
    let first = start(&server, &["lock", "l"]);
    first.wait_for("l/");
    let second = start(&server, &["lock", "l"]);
    // It waits in line as soon as its key is there.
    let start_of_wait = std::time::Instant::now();
    while server
        .ok(&["get", "l/", "--prefix", "--keys-only"])
        .matches("l/")
        .count()
        < 2
    {
        assert!(start_of_wait.elapsed() < crate::programs::PATIENCE);
    }
    assert_eq!(second.so_far(), "");
    first.signal("-INT");
    assert_eq!(first.finish().code, Some(0));
    second.wait_for("l/");
    second.signal("-TERM");
    assert_eq!(second.finish().code, Some(0));
    assert_eq!(server.ok(&["get", "l/", "--prefix"]), "");
}

#[test]
fn an_election_is_observed_and_resigned_from() {
    let Some(etcd) = any_etcd() else { return };
    let server = Server::start(&etcd, &[]);
    let observer = start(&server, &["elect", "-l", "e"]);
    let first = start(&server, &["elect", "e", "one"]);
    first.wait_for("one\n");
    observer.wait_for("one\n");
    let second = start(&server, &["elect", "e", "two"]);
    first.signal("-TERM");
    assert_eq!(first.finish().code, Some(0));
    second.wait_for("two\n");
    observer.wait_for("two\n");
    observer.signal("-INT");
    assert_eq!(observer.finish().code, Some(0));
}

#[test]
fn a_lease_is_kept_alive_until_it_is_revoked() {
    let Some(etcd) = any_etcd() else { return };
    let server = Server::start(&etcd, &[]);
    let granted = server.ok(&["lease", "grant", "3"]);
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    assert!(server.ok(&["lease", "list"]).contains(&id));
    let alive = start(&server, &["lease", "keep-alive", &id]);
    let renewed = format!("lease {id} keepalived with TTL(3)\n");
    alive.wait_for(&renewed.repeat(2));
    server.ok(&["lease", "revoke", &id]);
    alive.wait_for(&format!("lease {id} expired or revoked.\n"));
    assert_eq!(alive.finish().code, Some(0));
}

#[test]
fn files_are_left_to_etcdutl() {
    let Some(etcd) = our_etcd() else { return };
    let server = Server::start(&etcd, &[]);
    server.ok(&["put", "k", "v"]);
    let path = |name: &str| server.folder.path().join(name).display().to_string();
    let (file, restored, copy) = (path("db"), path("restored"), path("copy"));
    server.ok(&["snapshot", "save", &file]);
    let status = server.ctl(&["-w", "json", "snapshot", "status", &file]);
    assert!(status.text().contains("\"totalKey\":1"), "{}", status.text());
    assert!(status.errors().contains("Use `etcdutl snapshot status`"));
    server.ok(&["snapshot", "restore", &file, "--data-dir", &restored]);
    assert!(Path::new(&restored).join("member/store/MANIFEST").exists());

    let back_up = |from: &str| {
        let words = ["backup", "--data-dir", from, "--backup-dir", &copy];
        run(&mut command(&ours(), 2, &server.endpoint(), &words), "")
    };
    let used = back_up(&path("data"));
    assert_eq!(used.code, Some(1));
    assert!(
        used.errors().contains("in use by a running etcd"),
        "{}",
        used.errors()
    );
    assert_eq!(back_up(&restored).code, Some(0));
    assert!(back_up(&restored).errors().contains("is there already"));
    let again = Server::start(&etcd, &["--data-dir", &copy, "--force-new-cluster"]);
    assert_eq!(again.ok(&["get", "k", "--print-value-only"]), "v\n");
}

#[test]
fn a_mirror_follows_its_source() {
    let Some(etcd) = any_etcd() else { return };
    let (source, target) = (Server::start(&etcd, &[]), Server::start(&etcd, &[]));
    source.ok(&["put", "/a/1", "before"]);
    source.ok(&["put", "/b", "outside"]);
    let destination = target.endpoint();
    let _mirror = start(
        &source,
        &["make-mirror", "--prefix=/a/", "--dest-prefix=/z/", &destination],
    );
    let wait = |key: &str, value: &str| {
        let start = std::time::Instant::now();
        while target.ok(&["get", key]) != value {
            assert!(
                start.elapsed() < crate::programs::PATIENCE,
                "{key} never became {value:?}"
            );
        }
    };
    wait("/z/1", "/z/1\nbefore\n");
    source.ok(&["put", "/a/2", "after"]);
    source.ok(&["del", "/a/1"]);
    wait("/z/2", "/z/2\nafter\n");
    wait("/z/1", "");
    assert_eq!(target.ok(&["get", "", "--prefix", "--keys-only"]), "/z/2\n\n");
}

#[test]
fn a_snapshot_is_a_private_whole_file() {
    let Some(etcd) = Rival::V35.etcd().or_else(|| Rival::V34.etcd()) else {
        return;
    };
    let server = Server::start(&etcd, &[]);
    server.ok(&["put", "a", "1"]);
    let path = server.folder.path().join("snapshot.db");
    let name = path.to_str().unwrap();
    assert_eq!(
        server.ok(&["snapshot", "save", name]),
        format!("Snapshot saved at {name}\n")
    );
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.len() % 512), (0o600, 32));
    assert!(!path.with_extension("db.part").exists());
    if let Some(rival) = Rival::V34.etcdctl() {
        let status = run(
            &mut command(&rival, 3, &server.endpoint(), &["snapshot", "status", name]),
            "",
        );
        assert_eq!(status.code, Some(0), "{}", status.errors());
    }
    let two = format!("{0},{0}", server.endpoint());
    let refused = run(&mut command(&ours(), 3, &two, &["snapshot", "save", name]), "");
    assert_eq!(refused.code, Some(5));
    assert!(
        refused
            .errors()
            .contains("snapshot must be requested to one selected node, not multiple")
    );
}

#[test]
fn a_variable_beside_its_flag_is_refused_and_a_strange_one_named() {
    let mut both = command(
        &ours(),
        3,
        "127.0.0.1:1",
        &["get", "a", "--endpoints=127.0.0.1:2"],
    );
    let output = run(&mut both, "");
    assert_eq!(output.code, Some(1));
    assert!(
        output
            .errors()
            .contains("\"environment-variable\":\"ETCDCTL_ENDPOINTS\"")
    );
    let mut strange = command(&ours(), 3, "127.0.0.1:1", &["get", "a", "--command-timeout=10ms"]);
    let output = run(strange.env("ETCDCTL_STRANGE", "x"), "");
    assert!(output.errors().contains(
        "\"msg\":\"unrecognized environment variable\",\"environment-variable\":\"ETCDCTL_STRANGE=x\""
    ));
}

#[test]
fn usage_is_told_and_help_ends_well() {
    let ctl = |args: &[&str]| run(&mut command(&ours(), 3, "127.0.0.1:1", args), "");
    assert_eq!(
        ctl(&["version"]).text(),
        "etcdctl version: 3.6.8\nAPI version: 3.6\n"
    );
    let help = ctl(&["get", "--help"]);
    assert_eq!(help.code, Some(0));
    assert!(
        help.text()
            .starts_with("NAME:\n  get - Gets the key or a range of keys\n\nUSAGE:\n  etcdctl get [options]")
    );
    let unknown = ctl(&["gat"]);
    assert_eq!(unknown.code, Some(1));
    let text = "Error: unknown command \"gat\" for \"etcdctl\"\n\nDid you mean this?\n\tget\n\tput\n\nRun 'etcdctl --help' for usage.\n";
    assert_eq!(unknown.errors(), text);
    let version2 = run(&mut command(&ours(), 2, "x", &["--version"]), "");
    assert_eq!(version2.text(), "etcdctl version: 3.6.8\nAPI version: 2\n");
    let whereof = run(&mut command(&ours(), 2, "x", &["backup"]), "");
    assert_eq!(whereof.code, Some(1));
    assert!(whereof.errors().contains("--data-dir is not set"));
    let neither = run(&mut command(&ours(), 4, "x", &[]), "");
    assert_eq!(
        (neither.code, neither.errors().as_str()),
        (Some(1), "unsupported API version 4\n")
    );
}

/// What bash offers for a line, by the script that it would source.
fn completed(line: &[&str]) -> Vec<String> {
    let program = ours();
    let words = line.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>();
    let script = format!(
        "source <({0} completion bash) && COMP_WORDS=({0} {1}) && COMP_CWORD={2} && _etcdctl && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        program.display(),
        words.join(" "),
        line.len()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    assert_eq!(completed(&["mem"]), ["member"]);
    assert_eq!(completed(&["member", "pro"]), ["promote"]);
    assert_eq!(completed(&["get", "--keys"]), ["--keys-only"]);
    assert_eq!(
        completed(&["--write-out=json", "endpoint", "h"]),
        ["hashkv", "health"]
    );
    assert_eq!(completed(&["completion", "f"]), ["fish"]);
    assert!(completed(&["put", "key", ""]).is_empty());
    let described = run(&mut command(&ours(), 3, "", &["__complete", "lease", "g"]), "");
    assert_eq!(described.text(), "grant\tCreates leases\n:4\n");
}
