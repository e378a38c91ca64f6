//! The members as etcd's old store has them: a Go member that takes a snapshot from us wants them in its raft message, and one before 3.6
//! tells its name that way.

use serde_json::{Map, Value, json};

use super::{Member, Membership};

/// Go's zero time: never expires.
const NEVER: &str = "0001-01-01T00:00:00Z";
const VERSION: u32 = 2;

fn node(path: &str, value: &str, children: Value) -> Value {
    json!({
        "Path": path,
        "CreatedIndex": 0,
        "ModifiedIndex": 0,
        "ExpireTime": NEVER,
        "Value": value,
        "Children": children,
    })
}

/// Attributes alone have no id.
fn with_id(attributes: &str) -> Option<Value> {
    let mut value: Value = serde_json::from_str(attributes).ok()?;
    value.as_object_mut()?.insert("id".to_owned(), 0.into());
    Some(value)
}

fn leaf(path: &str, value: &Value) -> Value {
    node(path, &value.to_string(), Value::Null)
}

fn directory(path: &str, children: Map<String, Value>) -> Value {
    node(path, "", Value::Object(children))
}

/// What a request of the old store changed.
pub enum V2Change<'a> {
    Attributes(&'a Member),
    Version,
}

impl Membership {
    /// None when it is about nothing that concerns members.
    pub fn apply_v2(&mut self, path: &str, value: &str) -> Option<V2Change<'_>> {
        if path == "/0/version" {
            self.version = value.to_owned();
            return Some(V2Change::Version);
        }
        let id = path.strip_prefix("/0/members/")?.strip_suffix("/attributes")?;
        let id = u64::from_str_radix(id, 16).ok()?;
        let attributes: Member = serde_json::from_value(with_id(value)?).ok()?;
        let member = self.members.get_mut(&id)?;
        member.name = attributes.name;
        member.client_urls = attributes.client_urls;
        Some(V2Change::Attributes(member))
    }

    /// The store as JSON.
    pub fn v2_store(&self) -> Vec<u8> {
        let mut members = Map::new();
        for member in self.members.values() {
            let id = format!("{:x}", member.id);
            let path = format!("/0/members/{id}");
            let mut raft = json!({"peerURLs": member.peer_urls});
            if member.is_learner {
                raft["isLearner"] = true.into();
            }
            let mut attributes = Map::new();
            if !member.name.is_empty() {
                attributes.insert("name".to_owned(), member.name.clone().into());
            }
            if !member.client_urls.is_empty() {
                attributes.insert("clientURLs".to_owned(), member.client_urls.clone().into());
            }
            let mut files = Map::new();
            files.insert(
                "raftAttributes".to_owned(),
                leaf(&format!("{path}/raftAttributes"), &raft),
            );
            files.insert(
                "attributes".to_owned(),
                leaf(&format!("{path}/attributes"), &Value::Object(attributes)),
            );
            members.insert(id, directory(&path, files));
        }
        let removed = self.removed.iter().map(|id| {
            let path = format!("/0/removed_members/{id:x}");
            (format!("{id:x}"), node(&path, "removed", Value::Null))
        });
        let mut cluster = Map::new();
        cluster.insert("members".to_owned(), directory("/0/members", members));
        cluster.insert(
            "removed_members".to_owned(),
            directory("/0/removed_members", removed.collect()),
        );
        if !self.version.is_empty() {
            cluster.insert(
                "version".to_owned(),
                node("/0/version", &self.version, Value::Null),
            );
        }
        let mut root = Map::new();
        root.insert("0".to_owned(), directory("/0", cluster));
        root.insert("1".to_owned(), directory("/1", Map::new()));
        let store = json!({
            "Root": directory("/", root),
            "CurrentIndex": 0,
            "CurrentVersion": VERSION,
        });
        store.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_lies_where_etcd_looks_for_it() {
        let mut membership = Membership::initial("a=http://h:1", "t").unwrap();
        membership.removed.insert(0xbee);
        let id = *membership.members.keys().next().unwrap();
        let store: Value = serde_json::from_slice(&membership.v2_store()).unwrap();
        let pointer =
            format!("/Root/Children/0/Children/members/Children/{id:x}/Children/raftAttributes/Value");
        assert_eq!(
            store.pointer(&pointer),
            Some(&json!(r#"{"peerURLs":["http://h:1"]}"#))
        );
        let attributes = r#"{"name":"b","clientURLs":["http://c:1"]}"#;
        assert!(
            membership
                .apply_v2(&format!("/0/members/{id:x}/attributes"), attributes)
                .is_some()
        );
        assert_eq!(membership.members[&id].name, "b");
        assert!(membership.apply_v2("/0/version", "3.5.0").is_some());
        assert!(membership.apply_v2("/1/key", "{}").is_none());
        let removed = "/Root/Children/0/Children/removed_members/Children/bee/Value";
        assert_eq!(store.pointer(removed), Some(&json!("removed")));
    }
}
