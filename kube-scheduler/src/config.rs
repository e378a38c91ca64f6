//! KubeSchedulerConfiguration v1 as users write it, and what became of it.
//!
//! [`profiles`] turns the plugin sets of a profile into the lists that the framework runs.

mod profiles;

use std::path::Path;

use anyhow::{Result, bail};
use component_base::config::GoDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use profiles::{Plugins, build as build_profiles};

pub const GROUP: &str = "kubescheduler.config.k8s.io";
const KIND: &str = "KubeSchedulerConfiguration";
/// Read as v1, with a warning: fields that v1 lacks are errors.
const OLD_VERSIONS: [&str; 3] = [
    "kubescheduler.config.k8s.io/v1beta3",
    "kubescheduler.config.k8s.io/v1beta2",
    "kubescheduler.config.k8s.io/v1beta1",
];
/// The CKA courses' file; of its fields only those that still exist are read.
const COURSE_VERSIONS: [&str; 2] = ["componentconfig/v1alpha1", "kubescheduler.config.k8s.io/v1alpha1"];

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Configuration {
    /// Accepted; decisions here run on one thread.
    pub parallelism: i32,
    pub leader_election: LeaderElection,
    pub client_connection: ClientConnection,
    pub enable_profiling: bool,
    pub enable_contention_profiling: bool,
    pub percentage_of_nodes_to_score: i32,
    pub pod_initial_backoff_seconds: i64,
    pub pod_max_backoff_seconds: i64,
    pub profiles: Vec<ProfileConfig>,
    pub extenders: Vec<Extender>,
    pub delay_cache_until_active: bool,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            parallelism: 16,
            leader_election: LeaderElection::default(),
            client_connection: ClientConnection::default(),
            enable_profiling: true,
            enable_contention_profiling: true,
            percentage_of_nodes_to_score: 0,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            profiles: Vec::new(),
            extenders: Vec::new(),
            delay_cache_until_active: false,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaderElection {
    pub leader_elect: bool,
    pub lease_duration: GoDuration,
    pub renew_deadline: GoDuration,
    pub retry_period: GoDuration,
    pub resource_lock: String,
    pub resource_name: String,
    pub resource_namespace: String,
}

impl Default for LeaderElection {
    fn default() -> Self {
        let seconds = |n| GoDuration(std::time::Duration::from_secs(n));
        Self {
            leader_elect: true,
            lease_duration: seconds(15),
            renew_deadline: seconds(10),
            retry_period: seconds(2),
            resource_lock: "leases".to_owned(),
            resource_name: "kube-scheduler".to_owned(),
            resource_namespace: "kube-system".to_owned(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientConnection {
    pub kubeconfig: String,
    pub accept_content_types: String,
    pub content_type: String,
    /// Accepted; requests are bounded by how many are in flight, not by a rate.
    pub qps: f64,
    pub burst: i32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProfileConfig {
    pub scheduler_name: Option<String>,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub plugins: Plugins,
    pub plugin_config: Vec<PluginConfig>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginConfig {
    pub name: String,
    #[serde(default)]
    pub args: Value,
}

/// An HTTP extender. Its form is checked; a configuration that needs one is refused.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Extender {
    pub url_prefix: String,
    pub filter_verb: String,
    pub preempt_verb: String,
    pub prioritize_verb: String,
    pub weight: i64,
    pub bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    pub tls_config: Option<Value>,
    pub http_timeout: GoDuration,
    pub node_cache_capable: bool,
    pub managed_resources: Vec<Value>,
    pub ignorable: bool,
}

/// Reads a configuration file.
pub fn load(path: &Path) -> Result<Configuration> {
    let head: Head = component_base::config::load(path, &[])?;
    let api_version = head.api_version.as_str();
    if head.kind == KIND && COURSE_VERSIONS.contains(&api_version) {
        tracing::warn!(file = %path.display(), "{api_version} was removed long ago; only leaderElection.leaderElect and clientConnection.kubeconfig are read. Use {GROUP}/v1");
        return Ok(head.into_configuration());
    }
    if OLD_VERSIONS.contains(&api_version) {
        tracing::warn!(file = %path.display(), "{api_version} was removed; it is read as {GROUP}/v1");
    }
    let v1 = format!("{GROUP}/v1");
    let versions = OLD_VERSIONS.into_iter().chain([v1.as_str()]);
    let kinds: Vec<(&str, &str)> = versions.map(|version| (version, KIND)).collect();
    component_base::config::load(path, &kinds)
}

/// What every version has, and all that is read of the oldest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    api_version: String,
    kind: String,
    leader_election: Value,
    client_connection: Value,
}

impl Head {
    fn into_configuration(self) -> Configuration {
        let mut configuration = Configuration::default();
        if let Some(elect) = self.leader_election.get("leaderElect").and_then(Value::as_bool) {
            configuration.leader_election.leader_elect = elect;
        }
        if let Some(kubeconfig) = self.client_connection.get("kubeconfig").and_then(Value::as_str) {
            configuration.client_connection.kubeconfig = kubeconfig.to_owned();
        }
        configuration
    }
}

/// Fills in the single default profile and checks what upstream checks.
pub fn complete(mut configuration: Configuration) -> Result<Configuration> {
    if configuration.profiles.is_empty() {
        configuration.profiles.push(ProfileConfig::default());
    }
    if let [only] = configuration.profiles.as_mut_slice() {
        only.scheduler_name
            .get_or_insert_with(|| "default-scheduler".to_owned());
    }
    check(&configuration)?;
    Ok(configuration)
}

fn check(c: &Configuration) -> Result<()> {
    if c.parallelism <= 0 {
        bail!(
            "parallelism: Invalid value: {}: should be an integer value greater than zero",
            c.parallelism
        );
    }
    let percentages = c.profiles.iter().filter_map(|p| p.percentage_of_nodes_to_score);
    for percentage in percentages.chain([c.percentage_of_nodes_to_score]) {
        if !(0..=100).contains(&percentage) {
            bail!("percentageOfNodesToScore: Invalid value: {percentage}: not in valid range [0-100]");
        }
    }
    if c.pod_initial_backoff_seconds <= 0 {
        let value = c.pod_initial_backoff_seconds;
        bail!("podInitialBackoffSeconds: Invalid value: {value}: must be greater than 0");
    }
    if c.pod_max_backoff_seconds < c.pod_initial_backoff_seconds {
        let value = c.pod_max_backoff_seconds;
        bail!(
            "podMaxBackoffSeconds: Invalid value: {value}: must be greater than or equal to PodInitialBackoffSeconds"
        );
    }
    let lock = &c.leader_election.resource_lock;
    if c.leader_election.leader_elect && lock != "leases" {
        bail!("leaderElection.resourceLock: Invalid value: {lock:?}: resourceLock value must be \"leases\"");
    }
    check_names(c)?;
    check_extenders(&c.extenders)
}

fn check_names(c: &Configuration) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for (at, profile) in c.profiles.iter().enumerate() {
        let Some(name) = profile.scheduler_name.as_deref().filter(|n| !n.is_empty()) else {
            bail!("profiles[{at}].schedulerName: Required value");
        };
        if !seen.insert(name) {
            bail!("profiles[{at}].schedulerName: Duplicate value: {name:?}");
        }
    }
    Ok(())
}

fn check_extenders(extenders: &[Extender]) -> Result<()> {
    for (at, extender) in extenders.iter().enumerate() {
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let weight = extender.weight;
            bail!(
                "extenders[{at}].weight: Invalid value: {weight}: must have a positive weight applied to it"
            );
        }
        if !extender.ignorable {
            let url = &extender.url_prefix;
            bail!(
                "extenders[{at}]: this scheduler does not call extenders; remove {url:?} or mark it ignorable: true to go on without it"
            );
        }
        tracing::warn!(url = extender.url_prefix, "Extender is ignorable and not called");
    }
    if extenders.iter().filter(|e| !e.bind_verb.is_empty()).count() > 1 {
        bail!("extenders: only one extender can implement bind");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Configuration> {
        let file =
            std::env::temp_dir().join(format!("kube-scheduler-{}-{:p}.yaml", std::process::id(), text));
        std::fs::write(&file, text).expect("writes");
        let read = load(&file).and_then(complete);
        std::fs::remove_file(&file).expect("removes");
        read
    }

    #[test]
    fn the_hard_ways_file_is_read() {
        let read = read(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
             clientConnection:\n  kubeconfig: \"/var/lib/kubernetes/kube-scheduler.kubeconfig\"\n\
             leaderElection:\n  leaderElect: true\n",
        );
        let read = read.expect("reads");
        assert_eq!(
            read.client_connection.kubeconfig,
            "/var/lib/kubernetes/kube-scheduler.kubeconfig"
        );
        assert_eq!(
            read.profiles[0].scheduler_name.as_deref(),
            Some("default-scheduler")
        );
    }

    #[test]
    fn the_courses_old_file_is_read_with_its_leftovers() {
        let read = read(
            "apiVersion: componentconfig/v1alpha1\nkind: KubeSchedulerConfiguration\n\
             schedulerName: default-scheduler\nclientConnection:\n  kubeconfig: /x\n\
             leaderElection:\n  leaderElect: false\n",
        );
        let read = read.expect("reads");
        assert_eq!(read.client_connection.kubeconfig, "/x");
        assert!(!read.leader_election.leader_elect);
    }

    #[test]
    fn wrong_values_are_named() {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        let cases = [
            ("parallelism: 0\n", "parallelism"),
            ("percentageOfNodesToScore: 101\n", "percentageOfNodesToScore"),
            ("podMaxBackoffSeconds: 0\n", "podMaxBackoffSeconds"),
            (
                "profiles:\n- schedulerName: a\n- schedulerName: a\n",
                "profiles[1].schedulerName",
            ),
            (
                "profiles:\n- schedulerName: a\n- {}\n",
                "profiles[1].schedulerName",
            ),
            ("leaderElection:\n  resourceLock: endpoints\n", "resourceLock"),
            ("extenders:\n- urlPrefix: http://x\n", "extenders[0]"),
            ("perzentage: 1\n", "perzentage"),
        ];
        for (text, wanted) in cases {
            let error = format!("{:#}", read(&format!("{head}{text}")).expect_err(text));
            assert!(error.contains(wanted), "{error}");
        }
        assert!(read("apiVersion: v1\nkind: Pod\n").is_err());
    }
}
