//! The v2 API: as curl uses it, and Debian's etcdctl 3.4.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::auth::{authenticate, enable};
use crate::etcdctl::wait_for;
use crate::harness::{Answer, ETCDCTL, Etcd, Streaming, http};

const FORM: &[(&str, &str)] = &[("Content-Type", "application/x-www-form-urlencoded")];

fn start() -> Etcd {
    Etcd::start_with(&["--enable-v2"])
}

fn request(etcd: &Etcd, method: &str, key: &str, body: &str) -> Answer {
    http(etcd.port, method, &format!("/v2/keys{key}"), FORM, body)
}

fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{}", answer.body))
}

#[test]
fn it_is_off_by_default() {
    let etcd = Etcd::start();
    assert_eq!(request(&etcd, "GET", "/", "").status, 404);
}

#[test]
fn keys_are_set_compared_and_deleted_and_say_where_they_stand() {
    let etcd = start();
    let set = request(&etcd, "PUT", "/a/b", "value=1");
    assert_eq!(
        (set.status, set.header("x-etcd-index")),
        (201, Some("1".to_owned()))
    );
    for name in ["x-raft-index", "x-raft-term"] {
        let number = set.header(name).unwrap();
        assert!(number.parse::<u64>().unwrap() > 0, "{name}: {number}");
    }
    let members: Value = serde_json::from_str(&etcd.get("/v2/members").1).unwrap();
    assert_eq!(members["members"][0]["name"], "it");
    // As upstream prints it, without leading zeros.
    let cluster = set.header("x-etcd-cluster-id").unwrap();
    assert!(u64::from_str_radix(&cluster, 16).is_ok(), "{cluster}");
    let lost = request(&etcd, "PUT", "/a/b?prevValue=0", "value=2");
    assert_eq!((lost.status, &body(&lost)["errorCode"]), (412, &json!(101)));
    let got = request(&etcd, "GET", "/a?recursive=true&sorted=true&quorum=true", "");
    assert_eq!(body(&got)["node"]["nodes"][0]["value"], "1");
    assert_eq!(request(&etcd, "HEAD", "/a/b", "").body, "");
    assert_eq!(request(&etcd, "DELETE", "/a?recursive=true", "").status, 200);
    let gone = request(&etcd, "GET", "/a/b", "");
    assert_eq!(
        (gone.status, gone.header("x-etcd-index")),
        (404, Some("2".to_owned()))
    );
    assert_eq!(request(&etcd, "PATCH", "/a", "").status, 405);
    let large = "x".repeat(2 * 1024 * 1024);
    let refused = request(&etcd, "PUT", "/large", &format!("value={large}"));
    assert_eq!((refused.status, &body(&refused)["errorCode"]), (500, &json!(300)));
    let stats: Value = serde_json::from_str(&etcd.get("/v2/stats/store").1).unwrap();
    assert_eq!(
        (&stats["setsSuccess"], &stats["compareAndSwapFail"]),
        (&json!(1), &json!(1))
    );
    for (path, status) in [
        ("/v2/stats/self", 200),
        ("/v2/stats/leader", 200),
        ("/v2/members/leader", 200),
        ("/v2/machines", 200),
        ("/v2/nothing", 404),
    ] {
        assert_eq!(etcd.get(path).0, status, "{path}");
    }
    assert_eq!(http(etcd.port, "DELETE", "/v2/members/77", &[], "").status, 404);
}

#[test]
fn keys_survive_kill_9() {
    let mut etcd = start();
    for number in 0..50 {
        request(
            &etcd,
            "PUT",
            &format!("/k/{number:02}"),
            &format!("value={number}"),
        );
    }
    request(&etcd, "DELETE", "/k/07", "");
    request(&etcd, "PUT", "/t", "value=t&ttl=1000");
    let before = request(&etcd, "GET", "/k?recursive=true", "");
    etcd.restart();
    let after = request(&etcd, "GET", "/k?recursive=true", "");
    assert_eq!(after.body, before.body);
    assert_eq!(after.header("x-etcd-index"), before.header("x-etcd-index"));
    assert!(body(&request(&etcd, "GET", "/t", ""))["node"]["expiration"].is_string());
    assert_eq!(
        request(&etcd, "PUT", "/k/07", "value=again&prevExist=false").status,
        201
    );
}

#[test]
fn keys_end_after_their_time() {
    let etcd = start();
    let mut watch = Streaming::get(etcd.port, "/v2/keys/t?wait=true");
    let start = std::time::Instant::now();
    request(&etcd, "PUT", "/other", "value=x&ttl=1000");
    request(&etcd, "PUT", "/t", "value=x&ttl=1&prevExist=false");
    assert_eq!(watch.json()["action"], "create");
    let mut end = Streaming::get(etcd.port, "/v2/keys/t?wait=true&waitIndex=3");
    assert_eq!(end.json()["action"], "expire");
    assert!(start.elapsed().as_millis() >= 1000, "ended early");
    assert_eq!(request(&etcd, "GET", "/t", "").status, 404);
    assert_eq!(request(&etcd, "GET", "/other", "").status, 200);
}

#[test]
fn watchers_hear_of_changes_and_leave_with_their_connection() {
    let etcd = start();
    let watchers = || -> Value {
        let stats: Value = serde_json::from_str(&etcd.get("/v2/stats/store").1).unwrap();
        stats["watchers"].clone()
    };
    let mut stream = Streaming::get(etcd.port, "/v2/keys/d?wait=true&recursive=true&stream=true");
    let mut once = Streaming::get(etcd.port, "/v2/keys/d/x?wait=true");
    wait_for(|| watchers() == json!(2));
    for value in ["1", "2", "3"] {
        request(&etcd, "PUT", "/d/x", &format!("value={value}"));
    }
    for value in ["1", "2", "3"] {
        assert_eq!(stream.json()["node"]["value"], value);
    }
    assert_eq!(once.json()["node"]["value"], "1");
    assert!(once.ended(), "one event and no more");
    assert_eq!(watchers(), json!(1));
    drop(stream);
    wait_for(|| watchers() == json!(0));
    let past = request(&etcd, "GET", "/d/x?wait=true&waitIndex=2", "");
    assert_eq!(body(&past)["node"]["value"], "2");
}

/// etcdctl with the v2 face. None when it is not installed.
fn ctl(etcd: &Etcd, args: &[&str]) -> Option<(i32, String)> {
    if !std::path::Path::new(ETCDCTL).exists() {
        eprintln!("skipped: {ETCDCTL} is not installed (apt-get install etcd-client)");
        return None;
    }
    let endpoint = format!("http://127.0.0.1:{}", etcd.port);
    let output = Command::new(ETCDCTL)
        .env("ETCDCTL_API", "2")
        .args(["--endpoints", &endpoint])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((
        output.status.code().unwrap_or(-1),
        String::from_utf8(text).unwrap(),
    ))
}

#[test]
fn etcdctl_2_is_served() {
    let etcd = start();
    for (args, code, want) in [
        (&["set", "/x/y", "1"][..], 0, "1\n"),
        (&["get", "/x/y"], 0, "1\n"),
        (
            &["mk", "/x/y", "2"],
            4,
            "Error:  105: Key already exists (/x/y) [1]\n",
        ),
        (&["mk", "/x/z", "2"], 0, "2\n"),
        (&["mkdir", "/dir"], 0, ""),
        (&["setdir", "--ttl", "100", "/ttl"], 0, ""),
        (&["updatedir", "--ttl", "50", "/ttl"], 0, ""),
        (&["ls", "--sort", "-p", "/"], 0, "/dir/\n/ttl/\n/x/\n"),
        (&["ls", "-r", "--sort", "/x"], 0, "/x/y\n/x/z\n"),
        (&["update", "/x/y", "3"], 0, "3\n"),
        (
            &["update", "/no", "3"],
            4,
            "Error:  100: Key not found (/no) [6]\n",
        ),
        (&["set", "--swap-with-value", "3", "/x/y", "4"], 0, "4\n"),
        (
            &["set", "--swap-with-value", "3", "/x/y", "5"],
            4,
            "Error:  101: Compare failed ([3 != 4]) [7]\n",
        ),
        (&["rm", "/x/y"], 0, "PrevNode.Value: 4\n"),
        (&["rm", "/x"], 4, "Error:  102: Not a file (/x) [8]\n"),
        (&["rmdir", "/x"], 4, "Error:  108: Directory not empty (/x) [8]\n"),
        (&["rm", "-r", "/x"], 0, ""),
    ] {
        let Some(got) = ctl(&etcd, args) else { return };
        assert_eq!(got, (code, want.to_owned()), "{args:?}");
    }
    let (code, health) = ctl(&etcd, &["cluster-health"]).unwrap();
    assert!(code == 0 && health.ends_with("cluster is healthy\n"), "{health}");
    let (code, members) = ctl(&etcd, &["member", "list"]).unwrap();
    assert!(
        code == 0 && members.contains("name=it ") && members.contains("isLeader=true"),
        "{members}"
    );
}

#[test]
fn etcdctl_2_watches() {
    let etcd = start();
    let watched = std::thread::scope(|scope| {
        let watching = scope.spawn(|| ctl(&etcd, &["watch", "/w"]));
        // The watch may begin at any time: until it ends, there is always something to hear.
        while !watching.is_finished() {
            request(&etcd, "PUT", "/w", "value=heard");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        watching.join().unwrap()
    });
    let Some(watched) = watched else { return };
    assert_eq!(watched, (0, "heard\n".to_owned()));
}

/// The rules of auth know v3's keys only: nobody reads or changes the tree past them.
#[tokio::test]
async fn under_auth_it_is_for_users_of_v3_and_its_keys_are_roots() {
    let etcd = Etcd::start_with(&["--enable-v2", "--bcrypt-cost=4"]);
    assert_eq!(request(&etcd, "PUT", "/a", "value=1").status, 201);
    enable(&etcd).await;
    let ask = |path: &str, token: &str| http(etcd.port, "GET", path, &[("Authorization", token)], "").status;
    let root = authenticate(&etcd, "root", "root-password").await.unwrap();
    let alice = authenticate(&etcd, "alice", "alice-password").await.unwrap();
    for path in ["/v2/members", "/v2/machines", "/v2/stats/self"] {
        assert_eq!(etcd.get(path).0, 401, "{path}");
        assert_eq!(ask(path, "nonsense"), 401, "{path}");
        assert_eq!(ask(path, &alice), 200, "{path}");
    }
    assert_eq!(etcd.get("/v2/keys/a").0, 401);
    assert_eq!(ask("/v2/keys/a", &alice), 401);
    assert_eq!(ask("/v2/keys/a", &root), 200);
    assert_eq!(request(&etcd, "PUT", "/a", "value=2").status, 401);
}

/// There are none of v2: what reads says so as etcd does with its auth off, what would make some is told where to go.
#[test]
fn users_and_roles_of_its_own_are_said_not_to_be() {
    let etcd = start();
    let ask = |method: &str, path: &str| {
        let answer = http(etcd.port, method, &format!("/v2/auth/{path}"), &[], "");
        (answer.status, answer.body)
    };
    let root = r#"{"permissions":{"kv":{"read":["/*"],"write":["/*"]}},"role":"root"}"#;
    for (method, path, status, body) in [
        ("GET", "enable", 200, "{\"enabled\":false}\n".to_owned()),
        (
            "DELETE",
            "enable",
            409,
            r#"{"message":"auth: already disabled"}"#.to_owned(),
        ),
        ("GET", "users", 200, "{\"users\":null}\n".to_owned()),
        ("GET", "roles", 200, format!("{{\"roles\":[{root}]}}\n")),
        ("GET", "roles/root", 200, format!("{root}\n")),
        (
            "GET",
            "users/a",
            404,
            r#"{"message":"auth: User a does not exist."}"#.to_owned(),
        ),
        ("POST", "users/a", 405, "Method Not Allowed\n".to_owned()),
        ("GET", "nothing", 404, "404 page not found\n".to_owned()),
    ] {
        assert_eq!(ask(method, path), (status, body), "{method} {path}");
    }
    for path in ["enable", "users/root", "roles/a"] {
        let (status, body) = ask("PUT", path);
        assert!(
            status == 501 && body.contains("etcdctl auth enable"),
            "{path}: {status} {body}"
        );
    }
}

#[test]
fn an_unclean_path_is_sent_to_the_one_it_means() {
    let etcd = start();
    for (method, path, want) in [
        ("PUT", "/v2//keys/a?value=1", "/v2/keys/a?value=1"),
        ("GET", "/v2/keys/a/../b", "/v2/keys/b"),
        ("DELETE", "/v2/../version", "/version"),
    ] {
        let answer = http(etcd.port, method, path, &[], "");
        assert_eq!(
            (answer.status, answer.header("location").as_deref()),
            (307, Some(want)),
            "{path}"
        );
        assert_eq!(answer.body.contains(want), method == "GET", "{}", answer.body);
    }
    assert_eq!(
        request(&etcd, "GET", "/a", "").status,
        404,
        "nothing was done on the way"
    );
}
