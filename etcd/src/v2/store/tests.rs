use std::collections::BTreeMap;

use http::Method;

use super::*;
use crate::v2::form::Form;

const SECOND: i64 = 1_000_000_000;
/// In 2033: expirations of before 2000 are none.
const NOW: i64 = 2_000_000_000 * SECOND;

#[derive(Default)]
struct Kept(BTreeMap<String, Bytes>);

impl Records for Kept {
    fn put(&mut self, key: &str, record: Bytes) {
        self.0.insert(key.to_owned(), record);
    }

    fn delete(&mut self, key: &str) {
        assert!(self.0.remove(key).is_some(), "{key} was not kept");
    }
}

#[derive(Default)]
struct Machine {
    store: Store,
    kept: Kept,
    now: i64,
}

impl Machine {
    fn new() -> Machine {
        Machine {
            now: NOW,
            ..Machine::default()
        }
    }

    /// `PUT /key?query body`; status and body as they go to the client.
    fn run(&mut self, line: &str) -> (u16, String) {
        let mut parts = line.splitn(3, ' ');
        let (method, target, body) = (
            parts.next().unwrap(),
            parts.next().unwrap(),
            parts.next().unwrap_or(""),
        );
        let (key, query) = target.split_once('?').unwrap_or((target, ""));
        match self.request(method, key, query, body) {
            Ok((event, line)) => (if event.is_created() { 201 } else { 200 }, line),
            Err(error) => (error.response().status().as_u16(), error.json()),
        }
    }

    fn request(
        &mut self,
        method: &str,
        key: &str,
        query: &str,
        body: &str,
    ) -> Result<(Arc<Event>, String), Error> {
        let key = crate::v2::form::decode(key, false)?;
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let parsed = Form::parse(query, body)?.request(&method, &key, self.now)?;
        let event = if method == Method::GET {
            Arc::new(
                self.store
                    .get(&path::clean(&key), parsed.request.recursive, self.now)?,
            )
        } else {
            self.store.apply(&parsed.request, &mut self.kept)?.unwrap()
        };
        let text = |event: &Event| String::from_utf8(event.line()).unwrap();
        let line = if parsed.no_value_on_success {
            text(&event.without_values())
        } else {
            text(&event)
        };
        Ok((event, line))
    }

    fn ok(&mut self, line: &str) -> serde_json::Value {
        let (status, body) = self.run(line);
        assert!(status < 300, "{line}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn sync(&mut self) {
        let request = Request {
            method: "SYNC".to_owned(),
            time: self.now,
            ..Default::default()
        };
        assert!(self.store.apply(&request, &mut self.kept).unwrap().is_none());
    }

    /// As after a restart.
    fn restored(&self) -> Machine {
        let mut store = Store::default();
        for (key, record) in &self.kept.0 {
            store.restore(key.as_bytes(), record).unwrap();
        }
        Machine {
            store,
            kept: Kept(self.kept.0.clone()),
            now: self.now,
        }
    }

    fn watch(&mut self, key: &str, recursive: bool, stream: bool, since: u64) -> Result<Watching, Error> {
        self.store.watch(Interest {
            key: key.to_owned(),
            recursive,
            stream,
            since,
        })
    }
}

fn without_expirations(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.remove("expiration");
            fields.values_mut().for_each(without_expirations);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_expirations),
        _ => {}
    }
}

/// The answers in it were given by etcd 3.4, its indexes counted from 0, without the times of day.
#[test]
fn answers_are_those_of_etcd() {
    let mut machine = Machine::new();
    let mut lines = include_str!("transcript.txt").lines();
    while let (Some(request), Some(want)) = (lines.next(), lines.next()) {
        let (status, want) = want.trim().split_once(' ').unwrap();
        let got = machine.run(request);
        let mut body: serde_json::Value = serde_json::from_str(&got.1).unwrap();
        without_expirations(&mut body);
        let want: serde_json::Value = serde_json::from_str(want).unwrap();
        assert_eq!((got.0.to_string().as_str(), &body), (status, &want), "{request}");
    }
    let mut restored = machine.restored();
    let all = "GET /?recursive=true";
    assert_eq!(restored.run(all), machine.run(all));
    assert_eq!(restored.store.tree.bytes, machine.store.tree.bytes);
    assert_eq!(restored.store.tree.expirations, machine.store.tree.expirations);
}

#[test]
fn keys_end_in_order_when_their_time_has_come() {
    let mut machine = Machine::new();
    machine.ok("PUT /late value=l&ttl=20");
    machine.ok("PUT /dir dir=true&ttl=10");
    machine.ok("PUT /dir/file value=f&ttl=30");
    machine.ok("PUT /early value=e&ttl=5");
    machine.ok("PUT /kept value=k&ttl=5");
    machine.ok("PUT /kept value=k");
    let mut all = machine.watch("", true, true, 0).unwrap();
    let mut file = machine.watch("/dir/file", false, false, 0).unwrap();
    machine.now += 4 * SECOND;
    machine.sync();
    assert!(all.events.try_recv().is_err(), "nothing ends early");
    machine.now += 7 * SECOND;
    machine.sync();
    let mut told = || -> Option<(String, u64)> {
        all.events
            .try_recv()
            .ok()
            .map(|event| (event.key.clone(), event.index))
    };
    assert_eq!(told(), Some(("/early".to_owned(), 7)));
    assert_eq!(told(), Some(("/dir".to_owned(), 8)));
    assert_eq!(told(), None);
    let event = file.events.try_recv().unwrap();
    assert_eq!(
        serde_json::to_value(&*event).unwrap()["action"],
        "expire",
        "who waits below a directory hears of its end"
    );
    assert_eq!(machine.run("GET /dir/file").0, 404);
    let mut restored = machine.restored();
    restored.now += 10 * SECOND;
    restored.sync();
    assert_eq!(restored.run("GET /late").0, 404);
    assert_eq!(restored.run("GET /kept").0, 200);
    assert!(restored.store.tree.expirations.is_empty());
}

#[test]
fn watchers_get_what_concerns_them_once_and_in_order() {
    let mut machine = Machine::new();
    let mut once = machine.watch("/a", true, false, 0).unwrap();
    let mut exact = machine.watch("/a", false, true, 0).unwrap();
    let mut all = machine.watch("", true, true, 0).unwrap();
    let mut hidden = machine.watch("/a/_h", true, true, 0).unwrap();
    let mut later = machine.watch("/a", true, true, 4).unwrap();
    machine.ok("PUT /a/_h/x value=1"); // 1
    machine.ok("PUT /ab value=2"); // 2
    machine.ok("PUT /a/b value=3"); // 3
    machine.ok("PUT /a/b value=4&ttl=9"); // 4
    machine.ok("PUT /a/b refresh=true&ttl=99&prevExist=true"); // 5, nobody hears of it
    machine.ok("DELETE /a?recursive=true"); // 6
    let told = |watching: &mut Watching| {
        std::iter::from_fn(|| watching.events.try_recv().ok())
            .map(|event| event.index)
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&mut once), [3]);
    assert_eq!(told(&mut exact), [6]);
    assert_eq!(told(&mut all), [2, 3, 4, 6]);
    assert_eq!(told(&mut hidden), [1, 6]);
    assert_eq!(told(&mut later), [4, 6]);
    assert_eq!(machine.store.watchers(), 4);
    for watching in [exact, all, hidden, later] {
        machine.store.unwatch(&watching.key, watching.id.unwrap());
    }
    assert_eq!(machine.store.watchers(), 0);
}

#[test]
fn what_has_happened_is_told_as_long_as_it_is_known() {
    let mut machine = Machine::new();
    for number in 1..=1005 {
        machine.ok(&format!("PUT /k{} value=v", number % 2));
    }
    let mut past = |since, stream| machine.watch("/k1", false, stream, since);
    assert_eq!(past(7, false).unwrap().past[0].index, 7);
    let stream = past(1000, true).unwrap();
    let told: Vec<u64> = stream.past.iter().map(|event| event.index).collect();
    assert_eq!(told, [1001, 1003, 1005]);
    assert!(stream.id.is_some(), "it goes on with what comes");
    assert!(past(1006, false).unwrap().past.is_empty());
    let cleared = past(5, false).err().unwrap();
    assert_eq!(
        cleared.json(),
        r#"{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [6/5]","index":1005}"#
    );
    let mut restored = machine.restored();
    let cleared = restored.watch("/k1", false, false, 1005).err().unwrap();
    assert_eq!(cleared.code, Code::EventIndexCleared);
    assert!(restored.watch("/k1", false, false, 1006).is_ok());
}

#[test]
fn a_watcher_that_does_not_keep_up_is_cut_off() {
    let mut machine = Machine::new();
    let mut slow = machine.watch("/a", false, true, 0).unwrap();
    let gone = machine.watch("/a", false, true, 0).unwrap();
    drop(gone);
    for _ in 0..150 {
        machine.ok("PUT /a value=v");
    }
    assert_eq!(machine.store.watchers(), 0);
    let told = std::iter::from_fn(|| slow.events.try_recv().ok()).count();
    assert_eq!(told, 100);
}

#[test]
fn memory_is_bounded() {
    let mut machine = Machine::new();
    let value = "x".repeat(1024 * 1024);
    let refused = (0..20).find_map(|number| {
        let (status, body) = machine.run(&format!("PUT /k{number} value={value}"));
        (status != 201).then_some(body)
    });
    assert!(refused.unwrap().contains("\"errorCode\":300"));
    assert!(machine.store.tree.bytes <= MAX_BYTES);
    for _ in 0..40 {
        machine.ok(&format!("PUT /k0 value={value}"));
        machine.ok("PUT /k0 value=");
    }
    let oldest = machine.watch("", true, false, 1).err().unwrap();
    assert_eq!(oldest.code, Code::EventIndexCleared);
    machine.ok("DELETE /k1");
    assert_eq!(machine.run("PUT /again value=fits").0, 201);
    let deep = "/d".repeat(path::MAX_DEPTH + 1);
    assert_eq!(machine.run(&format!("PUT {deep} value=")).0, 400);
    assert_eq!(machine.run(&format!("PUT {} value=", &deep[2..])).0, 201);
    assert_eq!(machine.run("GET /?recursive=true").0, 200);
}

#[test]
fn siblings_that_sort_between_a_directory_and_its_keys_are_listed_once() {
    let mut machine = Machine::new();
    for key in ["/a/b/c/d", "/a/b-c", "/a/b0", "/a/b", "/ab"] {
        machine.run(&format!("PUT {key} value=v"));
    }
    let listed = machine.ok("GET /a");
    let keys: Vec<&str> = listed["node"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["/a/b", "/a/b-c", "/a/b0"]);
    machine.ok("DELETE /a/b?recursive=true");
    assert_eq!(machine.run("GET /a/b-c").0, 200);
    assert_eq!(machine.run("GET /a/b").0, 404);
}

#[test]
fn requests_of_others_are_no_keys() {
    let mut machine = Machine::new();
    for path in ["/0/members/1/attributes", "/10/x", ""] {
        let request = Request {
            method: "PUT".to_owned(),
            path: path.to_owned(),
            ..Default::default()
        };
        assert!(
            machine
                .store
                .apply(&request, &mut machine.kept)
                .unwrap()
                .is_none()
        );
    }
    assert_eq!((machine.store.index(), machine.kept.0.len()), (0, 0));
}
