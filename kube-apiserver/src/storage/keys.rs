//! Where objects lie in etcd: upstream's key for each resource.

/// `--etcd-prefix`, with one leading and no trailing slash.
#[derive(Clone, Debug)]
pub struct Prefix(String);

impl Prefix {
    pub fn new(prefix: &str) -> Prefix {
        Prefix(format!("/{}", prefix.trim_matches('/')))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `/registry/pods/`: all keys of a resource begin with it. The trailing slash keeps siblings apart (`foo` and `foobar`).
    pub fn resource(&self, group: &str, resource: &str) -> String {
        format!("{}/{}/", self.0, folder(group, resource))
    }
}

/// Resources whose folder is not their name.
const FOLDERS: [(&str, &str, &str); 5] = [
    ("", "nodes", "minions"),
    ("", "services", "services/specs"),
    ("", "endpoints", "services/endpoints"),
    ("", "replicationcontrollers", "controllers"),
    ("networking.k8s.io", "ingresses", "ingress"),
];

/// Built-in groups that were born with their group in the key, as custom resources are.
const GROUPS_IN_KEY: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

fn folder(group: &str, resource: &str) -> String {
    if let Some((_, _, folder)) = FOLDERS.iter().find(|(g, r, _)| *g == group && *r == resource) {
        return (*folder).to_owned();
    }
    if GROUPS_IN_KEY.contains(&group) { format!("{group}/{resource}") } else { resource.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_upstreams() {
        let prefix = Prefix::new("registry/");
        let cases = [
            ("", "pods", "/registry/pods/"),
            ("", "nodes", "/registry/minions/"),
            ("", "services", "/registry/services/specs/"),
            ("", "endpoints", "/registry/services/endpoints/"),
            ("apps", "deployments", "/registry/deployments/"),
            ("coordination.k8s.io", "leases", "/registry/leases/"),
            ("rbac.authorization.k8s.io", "clusterroles", "/registry/clusterroles/"),
            ("networking.k8s.io", "ingresses", "/registry/ingress/"),
            ("apiregistration.k8s.io", "apiservices", "/registry/apiregistration.k8s.io/apiservices/"),
            ("apiextensions.k8s.io", "customresourcedefinitions", "/registry/apiextensions.k8s.io/customresourcedefinitions/"),
        ];
        for (group, resource, key) in cases {
            assert_eq!(prefix.resource(group, resource), key);
        }
    }
}
