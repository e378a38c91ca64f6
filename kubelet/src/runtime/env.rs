//! The environment of a container: services, `envFrom`, `env`, with `$(VAR)` expansion.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod, Service};

use crate::downward::{self, Addresses};
use crate::objects::{ObjectError, Objects};
use crate::pod::PodExt;
use crate::resources::Amounts;

#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        key: String,
        kind: &'static str,
        namespace: String,
        name: String,
    },
    #[error("field label not supported: {0}")]
    Field(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
    #[error("services have not yet been read at least once, cannot construct envvars")]
    ServicesUnread,
}

pub type Env = Vec<(String, String)>;

pub struct Sources<'a> {
    pub objects: &'a dyn Objects,
    pub addresses: Addresses<'a>,
    pub allocatable: &'a Amounts,
}

pub async fn make_environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources<'_>,
) -> Result<Env, EnvError> {
    let mut env = Builder::default();
    add_env_from(pod, container, sources, &mut env).await?;
    let services = sources.objects.services().ok_or(EnvError::ServicesUnread)?;
    let service_env = service_environment(pod, &services);
    // What `env` refers to may be a service's variable, and what it sets beats it.
    let mut known: HashMap<String, String> = service_env.iter().cloned().collect();
    known.extend(env.values.iter().cloned());
    for var in container.env.iter().flatten() {
        if let Some(value) = env_value(pod, container, var, sources, &known).await? {
            known.insert(var.name.clone(), value.clone());
            env.set(var.name.clone(), value);
        }
    }
    for (name, value) in service_env {
        if !env.index.contains_key(&name) {
            env.set(name, value);
        }
    }
    Ok(env.values)
}

/// Last setting wins and keeps the first one's place.
#[derive(Default)]
struct Builder {
    values: Env,
    index: HashMap<String, usize>,
}

impl Builder {
    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(i) => self.values[*i].1 = value,
            None => {
                self.index.insert(name.clone(), self.values.len());
                self.values.push((name, value));
            }
        }
    }
}

async fn add_env_from(
    pod: &Pod,
    container: &Container,
    sources: &Sources<'_>,
    env: &mut Builder,
) -> Result<(), EnvError> {
    let namespace = pod.namespace();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut pairs: Env = Vec::new();
        if let Some(r) = &from.config_map_ref {
            let found = optional(sources.objects.config_map(namespace, &r.name).await, r.optional)?;
            pairs.extend(found.iter().flat_map(|m| m.data.clone().into_iter().flatten()));
        }
        if let Some(r) = &from.secret_ref {
            let found = optional(sources.objects.secret(namespace, &r.name).await, r.optional)?;
            let data = found.iter().flat_map(|s| s.data.clone().into_iter().flatten());
            pairs.extend(data.map(|(k, v)| (k, String::from_utf8_lossy(&v.0).into_owned())));
        }
        for (key, value) in pairs {
            let name = format!("{prefix}{key}");
            if is_env_name(&name) {
                env.set(name, value);
            }
        }
    }
    Ok(())
}

/// A name may be any printable ASCII but `=`.
fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

/// An object that is optional and absent is no error.
fn optional<T>(result: Result<T, ObjectError>, is_optional: Option<bool>) -> Result<Option<T>, ObjectError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_not_found() && is_optional == Some(true) => Ok(None),
        Err(e) => Err(e),
    }
}

async fn env_value(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    sources: &Sources<'_>,
    known: &HashMap<String, String>,
) -> Result<Option<String>, EnvError> {
    match &var.value_from {
        None => Ok(Some(expand(var.value.as_deref().unwrap_or_default(), &|name| {
            known.get(name).cloned()
        }))),
        Some(source) => value_from(pod, container, source, sources).await,
    }
}

async fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources<'_>,
) -> Result<Option<String>, EnvError> {
    let namespace = pod.namespace();
    let missing = |kind, name: &str, key: &str, is_optional: Option<bool>| {
        if is_optional == Some(true) {
            return Ok(None);
        }
        Err(EnvError::Key {
            key: key.into(),
            kind,
            namespace: namespace.into(),
            name: name.into(),
        })
    };
    if let Some(r) = &source.field_ref {
        let value = downward::field(pod, r, &sources.addresses);
        return value
            .map(Some)
            .ok_or_else(|| EnvError::Field(r.field_path.clone()));
    }
    if let Some(r) = &source.resource_field_ref {
        let named = r
            .container_name
            .as_deref()
            .filter(|n| !n.is_empty())
            .and_then(|n| pod.container(n));
        let value = downward::resource(named.as_ref().unwrap_or(container), r, sources.allocatable);
        return value
            .map(Some)
            .ok_or_else(|| EnvError::Resource(r.resource.clone()));
    }
    if let Some(r) = &source.config_map_key_ref {
        let map = optional(sources.objects.config_map(namespace, &r.name).await, r.optional)?;
        let value = map.and_then(|m| m.data.as_ref()?.get(&r.key).cloned());
        return value.map_or_else(
            || missing("ConfigMap", &r.name, &r.key, r.optional),
            |v| Ok(Some(v)),
        );
    }
    if let Some(r) = &source.secret_key_ref {
        let secret = optional(sources.objects.secret(namespace, &r.name).await, r.optional)?;
        let value = secret.and_then(|s| s.data.as_ref()?.get(&r.key).cloned());
        return match value {
            Some(v) => Ok(Some(String::from_utf8_lossy(&v.0).into_owned())),
            None => missing("Secret", &r.name, &r.key, r.optional),
        };
    }
    Ok(Some(String::new()))
}

/// The API server's own service is announced to every pod; the others of its namespace unless the pod declines.
fn service_environment(pod: &Pod, services: &[std::sync::Arc<Service>]) -> Env {
    let links = pod.spec().enable_service_links.unwrap_or(true);
    let mut chosen: std::collections::BTreeMap<String, &Service> = std::collections::BTreeMap::new();
    for service in services {
        let name = service.metadata.name.clone().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let has_ip = cluster_ip(service).is_some();
        let master = namespace == "default" && name == "kubernetes";
        if has_ip && links && namespace == pod.namespace() {
            chosen.insert(name, service);
        } else if has_ip && master {
            chosen.entry(name).or_insert(service);
        }
    }
    chosen
        .iter()
        .flat_map(|(name, service)| service_variables(name, service))
        .collect()
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None").then_some(ip)
}

fn service_variables(name: &str, service: &Service) -> Env {
    let ip = cluster_ip(service).unwrap_or_default();
    let prefix = env_word(name);
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_string()
    };
    let ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.as_deref())
        .unwrap_or_default();
    let mut env = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_string())];
    let Some(first) = ports.first() else { return env };
    env.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            env.push((
                format!("{prefix}_SERVICE_PORT_{}", env_word(port_name)),
                port.port.to_string(),
            ));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if i == 0 {
            env.push((format!("{prefix}_PORT"), url.clone()));
        }
        let own = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.push((own.clone(), url));
        env.push((format!("{own}_PROTO"), protocol.to_lowercase()));
        env.push((format!("{own}_PORT"), port.port.to_string()));
        env.push((format!("{own}_ADDR"), ip.to_string()));
    }
    env
}

fn env_word(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// `$(NAME)` becomes its value, `$$` one dollar; a reference that nothing defines stays as it is written.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::objects::fake::FakeObjects;
    use serde_json::json;

    #[test]
    fn expansion_is_upstreams() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_string());
        assert_eq!(expand("x $(A) $(B) $$(A) $ $A", &lookup), "x 1 $(B) $(A) $ $A");
        assert_eq!(expand("$(A", &lookup), "$(A");
    }

    fn service(name: &str, namespace: &str) -> Arc<Service> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}))
            .unwrap(),
        )
    }

    async fn environment(
        container: serde_json::Value,
        objects: FakeObjects,
    ) -> Result<HashMap<String, String>, EnvError> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [container]}}),
        )
        .unwrap();
        let sources = Sources {
            objects: &objects,
            addresses: Addresses {
                pod_ips: &[],
                host_ips: &[],
            },
            allocatable: &Amounts::new(),
        };
        Ok(make_environment(&pod, &pod.spec().containers[0], &sources)
            .await?
            .into_iter()
            .collect())
    }

    #[tokio::test]
    async fn services_are_announced_and_can_be_referred_to_and_overridden() {
        let objects = FakeObjects {
            services: vec![
                service("kubernetes", "default"),
                service("my-db", "n"),
                service("far", "other"),
            ],
            ..Default::default()
        };
        let env = environment(json!({"name": "c", "env": [
            {"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST)"}, {"name": "MY_DB_SERVICE_PORT", "value": "1"}]}), objects)
        .await
        .unwrap();
        assert_eq!(env["URL"], "https://10.96.0.1");
        assert_eq!(env["MY_DB_SERVICE_PORT"], "1");
        assert_eq!(env["MY_DB_PORT_443_TCP_ADDR"], "10.96.0.1");
        assert_eq!(env["KUBERNETES_PORT"], "tcp://10.96.0.1:443");
        assert!(!env.contains_key("FAR_SERVICE_HOST"));
    }

    #[tokio::test]
    async fn references_to_objects_fail_unless_optional() {
        let objects = || FakeObjects::default().with_config_map("n", "m", &[("k", "v")]);
        let by_key = |name: &str, key: &str, optional: bool| json!({"name": "c", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": name, "key": key, "optional": optional}}}]});
        assert_eq!(
            environment(by_key("m", "k", false), objects()).await.unwrap()["X"],
            "v"
        );
        let error = environment(by_key("m", "z", false), objects()).await.unwrap_err();
        assert_eq!(error.to_string(), "couldn't find key z in ConfigMap n/m");
        let error = environment(by_key("none", "k", false), objects())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "configmap \"none\" not found");
        assert!(
            environment(by_key("none", "k", true), objects())
                .await
                .unwrap()
                .is_empty()
        );
        let from = json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}]});
        assert_eq!(environment(from, objects()).await.unwrap()["P_k"], "v");
    }
}
