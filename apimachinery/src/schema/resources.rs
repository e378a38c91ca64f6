//! The table of resources, `schema/resources.txt`.

use super::Gvk;
use std::sync::OnceLock;

/// A resource in one of its versions, as discovery lists it.
#[derive(Debug)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    /// The plural in paths: `pods`.
    pub resource: &'static str,
    pub kind: &'static str,
    pub singular: &'static str,
    pub short_names: Vec<&'static str>,
    pub categories: Vec<&'static str>,
    pub namespaced: bool,
    pub verbs: Vec<&'static str>,
    pub subresources: Vec<Subresource>,
    /// Served unless `--runtime-config` says otherwise; alpha, beta and internal versions are off, as upstream.
    pub served: bool,
    /// The version written to etcd: group and version.
    pub storage: Gvk<'static>,
    /// Below `/registry/`: `pods`, `minions`, `services/specs`. Empty for what is never stored.
    pub key_prefix: &'static str,
}

#[derive(Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub gvk: Gvk<'static>,
    pub verbs: Vec<&'static str>,
}

impl Resource {
    pub fn gvk(&self) -> Gvk<'static> {
        Gvk::new(self.group, self.version, self.kind)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
}

/// All built-in resources, in discovery order.
pub fn resources() -> &'static [Resource] {
    static RESOURCES: OnceLock<Vec<Resource>> = OnceLock::new();
    RESOURCES.get_or_init(|| parse(include_str!("../../schema/resources.txt")))
}

/// One resource by group, version and plural.
pub fn resource(group: &str, version: &str, resource: &str) -> Option<&'static Resource> {
    resources()
        .iter()
        .find(|r| r.group == group && r.version == version && r.resource == resource)
}

/// What `*` stands for.
const ALL_VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";

/// The file is compiled in and a test reads it, so a bad line cannot reach a user.
fn malformed(line: &str) -> ! {
    panic!("schema/resources.txt: malformed line: {line}")
}

fn parse(text: &'static str) -> Vec<Resource> {
    let mut resources: Vec<Resource> = Vec::new();
    let mut group = Group::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(header) = line.strip_prefix("group ") {
            group = Group::parse(header);
        } else if let Some(row) = line.strip_prefix("    /") {
            let owner = resources.last_mut().unwrap_or_else(|| malformed(line));
            owner.subresources.push(group.subresource(row));
        } else {
            resources.push(group.resource(line));
        }
    }
    resources
}

#[derive(Default)]
struct Group {
    name: &'static str,
    version: &'static str,
    served: bool,
}

impl Group {
    fn parse(header: &'static str) -> Group {
        let mut words = header.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            malformed(header)
        };
        Group {
            name: dash_is_core(name),
            version,
            served: words.next() != Some("off"),
        }
    }

    fn resource(&self, row: &'static str) -> Resource {
        let words: Vec<&'static str> = row.split_whitespace().collect();
        let [resource, kind, singular, scope, verbs, marks @ ..] = &words[..] else {
            malformed(row)
        };
        let mark = |name: &str| {
            marks
                .iter()
                .find_map(|mark| mark.strip_prefix(name)?.strip_prefix('='))
        };
        Resource {
            group: self.name,
            version: self.version,
            resource,
            kind,
            singular,
            short_names: mark("short").map_or_else(Vec::new, |names| names.split(',').collect()),
            categories: mark("categories").map_or_else(Vec::new, |names| names.split(',').collect()),
            namespaced: *scope == "namespaced",
            verbs: if *verbs == "*" { ALL_VERBS } else { verbs }.split(',').collect(),
            subresources: Vec::new(),
            served: self.served,
            storage: mark("storage").map_or(Gvk::new(self.name, self.version, kind), |gv| storage(gv, kind)),
            key_prefix: mark("key").unwrap_or_default(),
        }
    }

    fn subresource(&self, row: &'static str) -> Subresource {
        let words: Vec<&'static str> = row.split_whitespace().collect();
        let [name, kind, verbs] = words[..] else {
            malformed(row)
        };
        let gvk = match kind.split_once('/') {
            None => Gvk::new(self.name, self.version, kind),
            Some((group, rest)) => {
                let Some((version, kind)) = rest.split_once('.') else {
                    malformed(row)
                };
                Gvk::new(dash_is_core(group), version, kind)
            }
        };
        Subresource {
            name,
            gvk,
            verbs: verbs.split(',').collect(),
        }
    }
}

fn dash_is_core(group: &'static str) -> &'static str {
    if group == "-" { "" } else { group }
}

fn storage(group_version: &'static str, kind: &'static str) -> Gvk<'static> {
    let Some((group, version)) = group_version.split_once('/') else {
        malformed(group_version)
    };
    Gvk::new(dash_is_core(group), version, kind)
}
