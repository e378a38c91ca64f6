//! The table of resources, `schema/resources.txt`.

use super::Gvk;

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
    &[]
}

/// One resource by group, version and plural.
pub fn resource(group: &str, version: &str, resource: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.group == group && r.version == version && r.resource == resource)
}
