//! Host name and the managed `/etc/hosts`.

use std::fmt::Write;

use apimachinery::validation;
use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::pod::PodExt;

/// The kernel's limit, less the terminating zero.
const MAX_HOSTNAME: usize = 63;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HOST_NETWORK_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";
const LOCAL_ENTRIES: &str = "127.0.0.1\tlocalhost\n\
     ::1\tlocalhost ip6-localhost ip6-loopback\n\
     fe00::0\tip6-localnet\n\
     fe00::0\tip6-mcastprefix\n\
     fe00::1\tip6-allnodes\n\
     fe00::2\tip6-allrouters\n";

/// The pod's host name and, when it has a subdomain, its domain.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> Result<(String, String), String> {
    let spec = pod.spec();
    if let Some(name) = &spec.hostname_override {
        return Ok((truncate(pod.name(), name)?, String::new()));
    }
    let wanted = spec.hostname.as_deref().filter(|h| !h.is_empty());
    if let Some(hostname) = wanted {
        check_label("Hostname", hostname)?;
    }
    let hostname = truncate(pod.name(), wanted.unwrap_or(pod.name()))?;
    let domain = match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(subdomain) => {
            check_label("Subdomain", subdomain)?;
            format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace())
        }
        None => String::new(),
    };
    Ok((hostname, domain))
}

fn check_label(what: &str, value: &str) -> Result<(), String> {
    let problems = validation::dns1123_label(value);
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!(
        "pod {what} {value:?} is not a valid DNS label: {}",
        problems.join(";")
    ))
}

fn truncate(pod_name: &str, hostname: &str) -> Result<String, String> {
    if hostname.len() <= MAX_HOSTNAME {
        return Ok(hostname.to_string());
    }
    let cut = hostname
        .get(..MAX_HOSTNAME)
        .unwrap_or_default()
        .trim_end_matches(['-', '.']);
    if cut.is_empty() {
        return Err(format!("hostname for pod {pod_name:?} was invalid: {hostname:?}"));
    }
    Ok(cut.to_string())
}

/// What the kernel is told: the short name, or all of it when the pod asks for that and it fits.
pub fn kernel_hostname(pod: &Pod, hostname: &str, domain: &str) -> Result<String, String> {
    if pod.spec().set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(hostname.to_string());
    }
    let fqdn = format!("{hostname}.{domain}");
    if fqdn.len() > MAX_HOSTNAME + 1 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({} characters is the max, {} characters requested)",
            MAX_HOSTNAME + 1,
            fqdn.len()
        ));
    }
    Ok(fqdn)
}

pub fn managed_hosts(ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = format!("{HEADER}{LOCAL_ENTRIES}");
    for ip in ips {
        let names = if domain.is_empty() {
            hostname.to_string()
        } else {
            format!("{hostname}.{domain}\t{hostname}")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{ip}\t{names}");
    }
    text + &alias_entries(aliases)
}

pub fn host_network_hosts(node_hosts: &str, aliases: &[HostAlias]) -> String {
    format!("{HOST_NETWORK_HEADER}{node_hosts}{}", alias_entries(aliases))
}

fn alias_entries(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases.iter().map(|a| {
        let names = a.hostnames.clone().unwrap_or_default().join("\t");
        format!("{}\t{names}\n", a.ip)
    });
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "a".repeat(62) + "-b", "namespace": "n"}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn the_name_is_the_pods_unless_it_says_otherwise() {
        let (name, domain) = hostname_and_domain(&pod(json!({"containers": []})), "cluster.local").unwrap();
        assert_eq!((name.as_str(), domain.as_str()), ("a".repeat(62).as_str(), ""));
        let named = pod(json!({"containers": [], "hostname": "web-0", "subdomain": "web"}));
        let (name, domain) = hostname_and_domain(&named, "cluster.local").unwrap();
        assert_eq!(
            (name.as_str(), domain.as_str()),
            ("web-0", "web.n.svc.cluster.local")
        );
        assert!(hostname_and_domain(&pod(json!({"containers": [], "hostname": "Web_0"})), "x").is_err());
    }

    #[test]
    fn the_hosts_file_is_upstreams() {
        let aliases = [HostAlias {
            ip: "1.2.3.4".into(),
            hostnames: Some(vec!["a".into(), "b".into()]),
        }];
        let text = managed_hosts(&["10.0.0.2".into()], "web-0", "web.n.svc.cluster.local", &aliases);
        assert!(text.starts_with(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost"
        ));
        assert!(text.ends_with("10.0.0.2\tweb-0.web.n.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        assert!(
            host_network_hosts("127.0.0.1 x\n", &[])
                .starts_with("# Kubernetes-managed hosts file (host network).\n127")
        );
    }
}
