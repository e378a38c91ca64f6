//! A pod's resolver: from its policy, the cluster's DNS and the node's `resolv.conf`.

use std::collections::HashSet;
use std::path::PathBuf;

use cri::v1;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod::PodExt;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// A resolver file is never larger; more is a mistake that must not be read into memory.
const MAX_RESOLV_CONF_BYTES: u64 = 10 << 20;
const CLUSTER_OPTION: &str = "ndots:5";

#[derive(Debug, Clone, Default)]
pub struct DnsSettings {
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    /// Empty: the pod's image decides.
    pub resolv_conf: PathBuf,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl From<Resolver> for v1::DnsConfig {
    fn from(r: Resolver) -> Self {
        Self {
            servers: r.servers,
            searches: r.searches,
            options: r.options,
        }
    }
}

enum Type {
    Cluster,
    Host,
    None,
}

/// The warning is for an event: the pod asked for the cluster's DNS and there is none.
pub fn pod_dns(pod: &Pod, settings: &DnsSettings) -> std::io::Result<(v1::DnsConfig, Option<String>)> {
    let host = read_host(settings)?;
    let (resolver, warning) = resolver(pod, settings, host);
    Ok((resolver.into(), warning))
}

fn read_host(settings: &DnsSettings) -> std::io::Result<Resolver> {
    let path = &settings.resolv_conf;
    if path.as_os_str().is_empty() {
        return Ok(Resolver::default());
    }
    let describe = |e: std::io::Error| {
        std::io::Error::new(
            e.kind(),
            format!(
                "could not read resolv.conf {} (--resolv-conf): {e}",
                path.display()
            ),
        )
    };
    let size = std::fs::metadata(path).map_err(describe)?.len();
    if size > MAX_RESOLV_CONF_BYTES {
        return Err(describe(std::io::Error::other(format!(
            "{size} bytes is no resolver file"
        ))));
    }
    Ok(parse(&String::from_utf8_lossy(
        &std::fs::read(path).map_err(describe)?,
    )))
}

pub fn parse(text: &str) -> Resolver {
    let mut found = Resolver::default();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace();
        let rest: Vec<String> = match words.next() {
            Some("nameserver") => {
                found.servers.extend(words.next().map(String::from));
                continue;
            }
            // The last search line counts; "." asks for nothing.
            Some("search") => {
                found.searches = words
                    .map(|w| {
                        if w == "." {
                            w.into()
                        } else {
                            w.trim_end_matches('.').to_string()
                        }
                    })
                    .collect();
                continue;
            }
            Some("options") => words.map(String::from).collect(),
            _ => continue,
        };
        found.options = append_options(&found.options, rest);
    }
    found
}

fn resolver(pod: &Pod, settings: &DnsSettings, host: Resolver) -> (Resolver, Option<String>) {
    let mut warning = None;
    let policy = pod.spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut kind = match policy {
        "None" => Type::None,
        "Default" => Type::Host,
        "ClusterFirst" if pod.is_host_network() => Type::Host,
        _ => Type::Cluster,
    };
    if matches!(kind, Type::Cluster) && settings.cluster_dns.is_empty() {
        warning = Some(format!(
            "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy.",
            pod.described()
        ));
        kind = Type::Host;
    }
    let mut chosen = match kind {
        Type::None => Resolver::default(),
        Type::Host if settings.resolv_conf.as_os_str().is_empty() => {
            // No file to copy: the node's own localhost resolver is of no use to a pod, its name service may be.
            Resolver {
                servers: vec!["127.0.0.1".into()],
                searches: vec![".".into()],
                options: vec![],
            }
        }
        Type::Host => host,
        Type::Cluster => Resolver {
            servers: settings.cluster_dns.clone(),
            searches: cluster_searches(pod, settings, host.searches),
            options: append_options(&host.options, vec![CLUSTER_OPTION.into()]),
        },
    };
    if let Some(own) = &pod.spec().dns_config {
        merge(&mut chosen, own);
    }
    (fit(chosen), warning)
}

fn cluster_searches(pod: &Pod, settings: &DnsSettings, host: Vec<String>) -> Vec<String> {
    let domain = &settings.cluster_domain;
    if domain.is_empty() {
        return host;
    }
    let own = [
        format!("{}.svc.{domain}", pod.namespace()),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    unique(own.into_iter().chain(host))
}

fn merge(into: &mut Resolver, own: &PodDNSConfig) {
    let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
    into.servers = unique(into.servers.drain(..).chain(list(&own.nameservers)));
    into.searches = unique(into.searches.drain(..).chain(list(&own.searches)));
    let options = own.options.iter().flatten().map(|o| {
        let name = o.name.clone().unwrap_or_default();
        o.value.as_ref().map_or(name.clone(), |v| format!("{name}:{v}"))
    });
    into.options = append_options(&into.options, options.collect());
}

/// A later option of the same name replaces the earlier one.
fn append_options(old: &[String], new: Vec<String>) -> Vec<String> {
    let name = |o: &str| o.split(':').next().unwrap_or_default().to_string();
    let replaced: HashSet<String> = new.iter().map(|o| name(o)).collect();
    old.iter()
        .filter(|o| !replaced.contains(&name(o)))
        .cloned()
        .chain(new.iter().cloned())
        .collect()
}

fn unique(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    items.filter(|i| seen.insert(i.clone())).collect()
}

fn fit(mut r: Resolver) -> Resolver {
    r.servers.truncate(MAX_NAMESERVERS);
    r.searches.truncate(MAX_SEARCH_PATHS);
    while r.searches.join(" ").len() > MAX_SEARCH_CHARS {
        r.searches.pop();
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings() -> DnsSettings {
        DnsSettings {
            cluster_dns: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }

    fn host() -> Resolver {
        parse("# comment\nnameserver 192.168.0.1\nsearch old\nsearch lan. corp\noptions ndots:2 rotate\n")
    }

    fn resolve(spec: serde_json::Value) -> Resolver {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
            .unwrap();
        resolver(&pod, &settings(), host()).0
    }

    #[test]
    fn cluster_first_searches_the_cluster_and_then_the_host() {
        let r = resolve(json!({"containers": [], "dnsPolicy": "ClusterFirst"}));
        assert_eq!(r.servers, ["10.96.0.10"]);
        assert_eq!(
            r.searches,
            [
                "n.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "lan",
                "corp"
            ]
        );
        assert_eq!(r.options, ["rotate", "ndots:5"]);
    }

    #[test]
    fn a_pod_on_the_host_network_resolves_as_the_host_unless_it_asks_for_the_cluster() {
        assert_eq!(
            resolve(json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true})),
            host()
        );
        let r =
            resolve(json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}));
        assert_eq!(r.servers, ["10.96.0.10"]);
    }

    #[test]
    fn the_pods_own_settings_are_merged_and_alone_with_none() {
        let own = json!({"nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]});
        let r = resolve(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": own}));
        assert_eq!(
            r,
            Resolver {
                servers: vec!["1.1.1.1".into()],
                searches: vec!["x".into()],
                options: vec!["ndots:1".into(), "edns0".into()]
            }
        );
        let r = resolve(json!({"containers": [], "dnsConfig": own}));
        assert_eq!(r.options, ["rotate", "ndots:1", "edns0"]);
    }

    #[test]
    fn without_cluster_dns_the_fallback_is_said() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}})).unwrap();
        let none = DnsSettings {
            cluster_dns: vec![],
            ..settings()
        };
        let (r, warning) = resolver(&pod, &none, host());
        assert_eq!(r, host());
        assert!(warning.unwrap().contains("Falling back to \"Default\""));
    }
}
