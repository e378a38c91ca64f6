//! Services, endpoints, ingresses, policies.

use std::collections::BTreeSet;

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use super::text::{NONE, Row, UNKNOWN, labels, listed, or, selector};
use super::{Printer, age, name, string, wide};

pub const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        resource: "services",
        columns: &[
            name(),
            string("Type"),
            string("Cluster-IP"),
            string("External-IP"),
            string("Port(s)"),
            age(),
            wide("Selector"),
        ],
        cells: service,
    },
    Printer {
        group: "",
        resource: "endpoints",
        columns: &[name(), string("Endpoints"), age()],
        cells: endpoints,
    },
    Printer {
        group: "discovery.k8s.io",
        resource: "endpointslices",
        columns: &[
            name(),
            string("AddressType"),
            string("Ports"),
            string("Endpoints"),
            age(),
        ],
        cells: endpoint_slice,
    },
    Printer {
        group: "networking.k8s.io",
        resource: "ingresses",
        columns: &[
            name(),
            string("Class"),
            string("Hosts"),
            string("Address"),
            string("Ports"),
            age(),
        ],
        cells: ingress,
    },
    Printer {
        group: "networking.k8s.io",
        resource: "ingressclasses",
        columns: &[name(), string("Controller"), string("Parameters"), age()],
        cells: ingress_class,
    },
    Printer {
        group: "networking.k8s.io",
        resource: "networkpolicies",
        columns: &[name(), string("Pod-Selector"), age()],
        cells: network_policy,
    },
    Printer {
        group: "networking.k8s.io",
        resource: "ipaddresses",
        columns: &[name(), string("ParentRef")],
        cells: ip_address,
    },
    Printer {
        group: "networking.k8s.io",
        resource: "servicecidrs",
        columns: &[name(), string("CIDRs"), age()],
        cells: service_cidr,
    },
];

fn service(row: &Row<'_>) -> Vec<Value> {
    let object = row.object;
    let cluster_ip = object
        .list_at("spec.clusterIPs")
        .first()
        .and_then(Value::as_str)
        .unwrap_or_else(|| or(object.str_at("spec.clusterIP"), NONE));
    let ports: Vec<String> = object.list_at("spec.ports").iter().map(port).collect();
    vec![
        row.name(),
        row.text("spec.type"),
        cluster_ip.into(),
        external_ip(object).into(),
        or(&ports.join(","), NONE).into(),
        row.age(),
        labels(object.at("spec.selector")).into(),
    ]
}

fn port(port: &Value) -> String {
    let (number, protocol) = (port.int_at("port").unwrap_or_default(), port.str_at("protocol"));
    match port.int_at("nodePort").unwrap_or_default() {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let mut addresses: Vec<String> = Vec::new();
    match service.str_at("spec.type") {
        "ClusterIP" | "NodePort" => {}
        "LoadBalancer" => addresses = load_balancer(service),
        "ExternalName" => return service.str_at("spec.externalName").to_owned(),
        _ => return UNKNOWN.to_owned(),
    }
    addresses.extend(
        service
            .list_at("spec.externalIPs")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned),
    );
    match (addresses.is_empty(), service.str_at("spec.type")) {
        (false, _) => addresses.join(","),
        (true, "LoadBalancer") => "<pending>".to_owned(),
        (true, _) => NONE.to_owned(),
    }
}

/// Addresses of a load balancer's status, distinct and sorted.
fn load_balancer(object: &Value) -> Vec<String> {
    let ingress = object.list_at("status.loadBalancer.ingress").iter();
    let addresses: BTreeSet<String> = ingress
        .map(|i| or(i.str_at("ip"), i.str_at("hostname")).to_owned())
        .filter(|a| !a.is_empty())
        .collect();
    addresses.into_iter().collect()
}

fn endpoints(row: &Row<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in row.object.list_at("subsets") {
        let addresses = subset.list_at("addresses");
        let ports = subset.list_at("ports");
        if ports.is_empty() {
            all.extend(addresses.iter().map(|a| a.str_at("ip").to_owned()));
        }
        for port in ports {
            all.extend(
                addresses
                    .iter()
                    .map(|a| host_port(a.str_at("ip"), port.int_at("port").unwrap_or_default())),
            );
        }
    }
    vec![row.name(), listed(&all).into(), row.age()]
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

fn endpoint_slice(row: &Row<'_>) -> Vec<Value> {
    let listed = |items: Vec<String>| {
        if items.is_empty() {
            UNSET_LIST.to_owned()
        } else {
            listed(&items)
        }
    };
    let port = |p: &Value| {
        p.int_at("port")
            .map_or_else(|| or(p.str_at("name"), "*").to_owned(), |n| n.to_string())
    };
    let ports = row.object.list_at("ports").iter().map(port).collect();
    let addresses = row
        .object
        .list_at("endpoints")
        .iter()
        .flat_map(|e| e.list_at("addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    vec![
        row.name(),
        row.text("addressType"),
        listed(ports).into(),
        listed(addresses).into(),
        row.age(),
    ]
}

const UNSET_LIST: &str = "<unset>";

fn ingress(row: &Row<'_>) -> Vec<Value> {
    let hosts: Vec<String> = row
        .object
        .list_at("spec.rules")
        .iter()
        .map(|r| r.str_at("host").to_owned())
        .filter(|h| !h.is_empty())
        .collect();
    let hosts = if hosts.is_empty() {
        "*".to_owned()
    } else {
        listed(&hosts)
    };
    let ports = if row.object.list_at("spec.tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        row.name(),
        row.text_or("spec.ingressClassName", NONE),
        hosts.into(),
        load_balancer(row.object).join(",").into(),
        ports.into(),
        row.age(),
    ]
}

fn ingress_class(row: &Row<'_>) -> Vec<Value> {
    let default = row
        .object
        .annotation("ingressclass.kubernetes.io/is-default-class")
        == Some("true");
    let name = format!("{}{}", row.object.name(), if default { " (default)" } else { "" });
    let parameters = row.object.at("spec.parameters").map_or_else(
        || NONE.to_owned(),
        |p| {
            let group = p.str_at("apiGroup");
            let group = if group.is_empty() {
                String::new()
            } else {
                format!(".{group}")
            };
            format!("{}{group}/{}", p.str_at("kind"), p.str_at("name"))
        },
    );
    vec![
        name.into(),
        row.text("spec.controller"),
        parameters.into(),
        row.age(),
    ]
}

fn network_policy(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        selector(row.object.at("spec.podSelector")).into(),
        row.age(),
    ]
}

fn ip_address(row: &Row<'_>) -> Vec<Value> {
    let parent = |key: &str| row.object.str_at(&format!("spec.parentRef.{key}"));
    let parts: Vec<&str> = ["resource", "group", "namespace", "name"]
        .iter()
        .map(|k| parent(k))
        .filter(|p| !p.is_empty())
        .collect();
    vec![row.name(), parts.join("/").into()]
}

fn service_cidr(row: &Row<'_>) -> Vec<Value> {
    let cidrs: Vec<&str> = row
        .object
        .list_at("spec.cidrs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    vec![row.name(), cidrs.join(",").into(), row.age()]
}
