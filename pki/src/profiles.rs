//! The one table of what a cluster needs: authorities, certificates, kubeconfigs. Names and subjects are kubeadm's.

use std::net::IpAddr;

use crate::settings::Settings;

/// A certificate authority.
pub struct Authority {
    pub name: &'static str,
    /// Below --cert-dir, without extension.
    pub path: &'static str,
    pub common_name: &'static str,
    pub purpose: &'static str,
}

/// A leaf certificate.
pub struct Profile {
    pub name: &'static str,
    pub home: Home,
    /// Without extension.
    pub path: &'static str,
    /// Name of an [`Authority`].
    pub authority: &'static str,
    /// `{node}` stands for the node's name.
    pub common_name: &'static str,
    pub organization: Option<&'static str>,
    pub server: bool,
    pub client: bool,
    pub names: Names,
    pub purpose: &'static str,
}

/// A kubeconfig with an embedded client certificate.
pub struct Kubeconfig {
    pub name: &'static str,
    pub file: &'static str,
    pub common_name: &'static str,
    pub organization: Option<&'static str>,
    pub server: Endpoint,
    pub purpose: &'static str,
}

/// The folder that a path is below.
#[derive(Clone, Copy, PartialEq)]
pub enum Home {
    CertDir,
    KubeletDir,
}

/// Which subject alternative names a certificate needs.
#[derive(Clone, Copy, PartialEq)]
pub enum Names {
    None,
    Apiserver,
    /// The node and localhost.
    Etcd,
    /// The node by name and addresses.
    Node,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Endpoint {
    /// What clients from elsewhere use: --control-plane-endpoint.
    Cluster,
    /// The API server of this host.
    Local,
}

pub const AUTHORITIES: &[Authority] = &[
    Authority {
        name: "ca",
        path: "ca",
        common_name: "kubernetes",
        purpose: "identities of all Kubernetes components and users",
    },
    Authority {
        name: "etcd-ca",
        path: "etcd/ca",
        common_name: "etcd-ca",
        purpose: "identities of etcd's members and clients",
    },
    Authority {
        name: "front-proxy-ca",
        path: "front-proxy-ca",
        common_name: "front-proxy-ca",
        purpose: "identity of the API server towards aggregated API servers",
    },
];

/// RBAC binds this group to cluster-admin, so that admin.conf can be revoked; super-admin.conf cannot.
const CLUSTER_ADMINS: &str = "kubeadm:cluster-admins";

pub const PROFILES: &[Profile] = &[
    Profile {
        name: "apiserver",
        home: Home::CertDir,
        path: "apiserver",
        authority: "ca",
        common_name: "kube-apiserver",
        organization: None,
        server: true,
        client: false,
        names: Names::Apiserver,
        purpose: "serving the Kubernetes API (kube-apiserver --tls-cert-file)",
    },
    Profile {
        name: "apiserver-etcd-client",
        home: Home::CertDir,
        path: "apiserver-etcd-client",
        authority: "etcd-ca",
        common_name: "kube-apiserver-etcd-client",
        organization: None,
        server: false,
        client: true,
        names: Names::None,
        purpose: "the API server as etcd's client (kube-apiserver --etcd-certfile)",
    },
    Profile {
        name: "apiserver-kubelet-client",
        home: Home::CertDir,
        path: "apiserver-kubelet-client",
        authority: "ca",
        common_name: "kube-apiserver-kubelet-client",
        organization: Some(CLUSTER_ADMINS),
        server: false,
        client: true,
        names: Names::None,
        purpose: "the API server as the kubelets' client (kube-apiserver --kubelet-client-certificate)",
    },
    Profile {
        name: "etcd-healthcheck-client",
        home: Home::CertDir,
        path: "etcd/healthcheck-client",
        authority: "etcd-ca",
        common_name: "kube-etcd-healthcheck-client",
        organization: None,
        server: false,
        client: true,
        names: Names::None,
        purpose: "probes and etcdctl",
    },
    Profile {
        name: "etcd-peer",
        home: Home::CertDir,
        path: "etcd/peer",
        authority: "etcd-ca",
        common_name: "{node}",
        organization: None,
        server: true,
        client: true,
        names: Names::Etcd,
        purpose: "etcd's members among themselves (etcd --peer-cert-file)",
    },
    Profile {
        name: "etcd-server",
        home: Home::CertDir,
        path: "etcd/server",
        authority: "etcd-ca",
        common_name: "{node}",
        organization: None,
        server: true,
        client: true,
        names: Names::Etcd,
        purpose: "serving etcd's clients (etcd --cert-file)",
    },
    Profile {
        name: "front-proxy-client",
        home: Home::CertDir,
        path: "front-proxy-client",
        authority: "front-proxy-ca",
        common_name: "front-proxy-client",
        organization: None,
        server: false,
        client: true,
        names: Names::None,
        purpose: "the API server towards aggregated API servers (kube-apiserver --proxy-client-cert-file)",
    },
    Profile {
        name: "kubelet",
        home: Home::KubeletDir,
        path: "kubelet",
        authority: "ca",
        common_name: "system:node:{node}",
        organization: Some("system:nodes"),
        server: true,
        client: false,
        names: Names::Node,
        purpose: "serving the kubelet's API (kubelet tlsCertFile)",
    },
    Profile {
        name: "kubelet-client",
        home: Home::KubeletDir,
        path: "kubelet-client",
        authority: "ca",
        common_name: "system:node:{node}",
        organization: Some("system:nodes"),
        server: false,
        client: true,
        names: Names::None,
        purpose: "the kubelet as the API server's client, where its kubeconfig names files",
    },
];

pub const KUBECONFIGS: &[Kubeconfig] = &[
    Kubeconfig {
        name: "admin",
        file: "admin.conf",
        common_name: "kubernetes-admin",
        organization: Some(CLUSTER_ADMINS),
        server: Endpoint::Cluster,
        purpose: "people who administer the cluster",
    },
    Kubeconfig {
        name: "super-admin",
        file: "super-admin.conf",
        common_name: "kubernetes-super-admin",
        organization: Some("system:masters"),
        server: Endpoint::Cluster,
        purpose: "the way in when RBAC is broken: authorization is bypassed",
    },
    Kubeconfig {
        name: "controller-manager",
        file: "controller-manager.conf",
        common_name: "system:kube-controller-manager",
        organization: None,
        server: Endpoint::Local,
        purpose: "kube-controller-manager --kubeconfig",
    },
    Kubeconfig {
        name: "scheduler",
        file: "scheduler.conf",
        common_name: "system:kube-scheduler",
        organization: None,
        server: Endpoint::Local,
        purpose: "kube-scheduler --kubeconfig",
    },
    Kubeconfig {
        name: "kubelet",
        file: "kubelet.conf",
        common_name: "system:node:{node}",
        organization: Some("system:nodes"),
        server: Endpoint::Cluster,
        purpose: "kubelet --kubeconfig",
    },
    Kubeconfig {
        name: "kube-proxy",
        file: "kube-proxy.conf",
        common_name: "system:kube-proxy",
        organization: Some("system:node-proxier"),
        server: Endpoint::Cluster,
        purpose: "kube-proxy clientConnection.kubeconfig",
    },
];

pub fn authority(name: &str) -> Option<&'static Authority> {
    AUTHORITIES.iter().find(|authority| authority.name == name)
}

pub fn profile(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

/// By name or file name.
pub fn kubeconfig(name: &str) -> Option<&'static Kubeconfig> {
    KUBECONFIGS
        .iter()
        .find(|row| row.name == name || row.file == name)
}

/// The subject alternative names of a leaf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AltNames {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl AltNames {
    pub fn of(names: Names, settings: &Settings) -> Self {
        let mut alt = AltNames::default();
        match names {
            Names::None => return alt,
            Names::Apiserver => alt.apiserver(settings),
            Names::Etcd => {
                alt.add(&settings.node_name);
                alt.add("localhost");
                alt.add("127.0.0.1");
                alt.add("::1");
                alt.address(settings.advertise_address);
            }
            Names::Node => {
                alt.add(&settings.node_name);
                settings
                    .node_addresses
                    .iter()
                    .for_each(|address| alt.address(*address));
            }
        }
        alt
    }

    fn apiserver(&mut self, settings: &Settings) {
        for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
            self.add(name);
        }
        self.add(&format!("kubernetes.default.svc.{}", settings.dns_domain));
        self.add(&settings.node_name);
        self.address(settings.first_service_address);
        self.address(settings.advertise_address);
        if let Some(host) = settings.control_plane_host() {
            self.add(host);
        }
        settings.extra_names.iter().for_each(|name| self.add(name));
    }

    /// A DNS name or an address, once.
    fn add(&mut self, name: &str) {
        match name.parse() {
            Ok(address) => self.address(address),
            Err(_) if !self.dns.iter().any(|known| known == name) => self.dns.push(name.to_owned()),
            Err(_) => {}
        }
    }

    fn address(&mut self, address: IpAddr) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    /// What is wanted and not there.
    pub fn missing_from(&self, dns: &[String], addresses: &[IpAddr]) -> Vec<String> {
        let names = self.dns.iter().filter(|name| !dns.contains(name)).cloned();
        let addresses = self
            .addresses
            .iter()
            .filter(|address| !addresses.contains(address))
            .map(ToString::to_string);
        names.chain(addresses).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_an_authority_and_a_use() {
        for profile in PROFILES {
            assert!(authority(profile.authority).is_some(), "{}", profile.name);
            assert!(profile.server || profile.client);
            assert_eq!(
                profile.server,
                profile.names != Names::None,
                "{}: servers and only servers have names",
                profile.name
            );
        }
    }
}
