//! Which resources the API server has, as controllers that treat all of them alike need to know.

use client::{Client, Error, ResourceType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList, APIVersions};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Discovered {
    pub resource: ResourceType,
    pub verbs: Vec<String>,
}

impl Discovered {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

#[derive(Default)]
pub struct Discovery {
    /// Resources of each group's preferred version.
    pub resources: Vec<Discovered>,
    /// Group versions that did not answer, with the reason: an aggregated API that is down must not stop the rest.
    pub failed: Vec<(String, Error)>,
}

pub async fn discover(client: &Client) -> Result<Discovery, Error> {
    let mut found = Discovery::default();
    let core: APIVersions = client.get_json("/api").await?;
    let groups: APIGroupList = client.get_json("/apis").await?;
    for version in core.versions {
        found.read(client, &version, format!("/api/{version}")).await;
    }
    for group in groups.groups {
        let mut versions: Vec<_> = group.versions.iter().map(|v| v.group_version.clone()).collect();
        let preferred = group.preferred_version.map(|v| v.group_version);
        versions.sort_by_key(|version| Some(version) != preferred.as_ref());
        for version in versions {
            found.read(client, &version, format!("/apis/{version}")).await;
        }
    }
    found.keep_first_versions();
    Ok(found)
}

impl Discovery {
    async fn read(&mut self, client: &Client, group_version: &str, path: String) {
        match client.get_json::<APIResourceList>(&path).await {
            Ok(list) => self.add(group_version, list),
            Err(error) => self.failed.push((group_version.to_owned(), error)),
        }
    }

    fn add(&mut self, group_version: &str, list: APIResourceList) {
        let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
        // A slash marks a subresource.
        for resource in list.resources.into_iter().filter(|r| !r.name.contains('/')) {
            let resource_type = ResourceType {
                group: resource
                    .group
                    .filter(|g| !g.is_empty())
                    .unwrap_or_else(|| group.to_owned()),
                version: resource
                    .version
                    .filter(|v| !v.is_empty())
                    .unwrap_or_else(|| version.to_owned()),
                resource: resource.name,
                kind: resource.kind,
                namespaced: resource.namespaced,
            };
            self.resources.push(Discovered {
                resource: resource_type,
                verbs: resource.verbs,
            });
        }
    }

    /// One version of each resource is enough: they show the same objects.
    fn keep_first_versions(&mut self) {
        let mut seen = BTreeMap::new();
        self.resources.retain(|found| {
            seen.insert(
                (found.resource.group.clone(), found.resource.resource.clone()),
                (),
            )
            .is_none()
        });
    }
}
