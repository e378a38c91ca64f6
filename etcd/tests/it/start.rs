//! What refuses to start, and how it says so.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use free_port::free_port;
use tempfile::TempDir;

use crate::harness::Etcd;

fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_etcd"))
        .args(args)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn an_unknown_flag_names_the_nearest() {
    let (code, text) = refused(&["--listen-client-url=http://127.0.0.1:1"]);
    assert_eq!(code, Some(2), "as Go's flags");
    assert!(text.contains("--listen-client-urls"), "{text}");
}

#[test]
fn a_second_process_is_told_that_the_directory_is_in_use() {
    let etcd = Etcd::start();
    let (client, peer) = (
        format!("http://127.0.0.1:{}", free_port()),
        format!("http://127.0.0.1:{}", free_port()),
    );
    let (code, text) = refused(&[
        &format!("--data-dir={}", etcd.dir.display()),
        &format!("--listen-client-urls={client}"),
        &format!("--advertise-client-urls={client}"),
        &format!("--listen-peer-urls={peer}"),
        &format!("--initial-advertise-peer-urls={peer}"),
    ]);
    assert_eq!(code, Some(1));
    assert!(text.contains("in use") && text.contains("--data-dir"), "{text}");
}

#[test]
fn the_data_directory_is_private() {
    let etcd = Etcd::start();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&etcd.dir), 0o700);
    assert_eq!(mode(&etcd.dir.join("member/wal")), 0o700);
}

#[test]
fn a_directory_of_the_go_etcd_is_left_alone() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir_all(folder.path().join("member/snap")).unwrap();
    std::fs::write(folder.path().join("member/snap/db"), b"bolt").unwrap();
    let (client, peer) = (
        format!("http://127.0.0.1:{}", free_port()),
        format!("http://127.0.0.1:{}", free_port()),
    );
    let (code, text) = refused(&[
        &format!("--data-dir={}", folder.path().display()),
        &format!("--listen-client-urls={client}"),
        &format!("--advertise-client-urls={client}"),
        &format!("--listen-peer-urls={peer}"),
        &format!("--initial-advertise-peer-urls={peer}"),
    ]);
    assert_eq!(code, Some(1));
    let command = format!(
        "etcdutl snapshot restore {}/member/snap/db --skip-hash-check",
        folder.path().display()
    );
    assert!(text.contains(&command), "{text}");
    assert_eq!(
        std::fs::read(folder.path().join("member/snap/db")).unwrap(),
        b"bolt"
    );
}

#[test]
fn a_configuration_file_is_read_and_a_mistake_in_it_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("etcd.yaml");
    std::fs::write(&file, "name: x\nclient-transport-security:\n  cert-fil: y\n").unwrap();
    let (code, text) = refused(&[&format!("--config-file={}", file.display())]);
    assert_eq!(code, Some(1));
    assert!(text.contains("etcd.yaml") && text.contains("cert-fil"), "{text}");
}

#[test]
fn systemd_is_told_when_it_is_ready() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let mut command =
        crate::harness::command(&folder.path().join("data"), "http", free_port(), free_port(), &[]);
    let mut child = command
        .env("NOTIFY_SOCKET", &path)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut buffer = [0; 256];
    let mut said = String::new();
    while !said.contains("READY=1") {
        let length = socket.recv(&mut buffer).expect("READY=1 did not come");
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
