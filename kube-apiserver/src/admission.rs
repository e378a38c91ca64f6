//! What a write must satisfy beyond its own shape: the admission plugins, in upstream's order.
//!
//! `Chain::admit` lets each plugin change the object, `Chain::validate` lets each refuse the final one; the
//! RBAC escalation check comes last and cannot be switched off. A plugin is one file here and one row in `PLUGINS`.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::{self, GroupResource, StatusError};
use futures_util::future::BoxFuture;

use crate::authorization::Authorizers;
use crate::authorization::escalation::EscalationCheck;
use crate::registry::admission::{Admission, Attributes, Operation};

mod always_pull_images;
mod certificates;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod deny_service_external_ips;
#[cfg(test)]
pub mod fake;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
pub mod objects;
mod owner_references_permission;
mod persistent_volume_claim_resize;
pub mod pod_references;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;
mod verdicts;

use objects::Objects;

/// Why a plugin does not let a request pass.
#[derive(Debug)]
pub enum Refusal {
    Status(StatusError),
    /// Something that is being made elsewhere is not there yet: asked again, `attempts` times with a pause.
    NotYet {
        error: StatusError,
        attempts: u32,
        pause: Duration,
    },
}

impl From<StatusError> for Refusal {
    fn from(error: StatusError) -> Self {
        Refusal::Status(error)
    }
}

pub type Verdict = Result<(), Refusal>;

pub trait Plugin: Send + Sync {
    /// Operations that the plugin looks at.
    fn operations(&self) -> &'static [Operation];

    /// Mutating phase; may be called again after `NotYet`.
    fn admit(&self, _: &mut Attributes) -> Verdict {
        Ok(())
    }

    fn validate(&self, _: &Attributes) -> Verdict {
        Ok(())
    }
}

/// What plugins are made from.
#[derive(Clone)]
pub struct Seams {
    pub objects: Arc<dyn Objects>,
    pub authorizers: Arc<Authorizers>,
}

type Make = fn(&Seams) -> Box<dyn Plugin>;

struct Entry {
    name: &'static str,
    default_on: bool,
    /// `None`: a name that upstream knows and this server does not implement yet.
    make: Option<Make>,
}

const fn on(name: &'static str, make: Make) -> Entry {
    Entry {
        name,
        default_on: true,
        make: Some(make),
    }
}

const fn off(name: &'static str, make: Make) -> Entry {
    Entry {
        name,
        default_on: false,
        make: Some(make),
    }
}

const fn missing(name: &'static str, default_on: bool) -> Entry {
    Entry {
        name,
        default_on,
        make: None,
    }
}

/// All plugins in the order in which they run.
const PLUGINS: &[Entry] = &[
    off("AlwaysAdmit", |_| Box::new(verdicts::AlwaysAdmit)),
    missing("NamespaceAutoProvision", false),
    on("NamespaceLifecycle", |s| {
        Box::new(namespace_lifecycle::NamespaceLifecycle::new(s))
    }),
    missing("NamespaceExists", false),
    missing("LimitPodHardAntiAffinityTopology", false),
    on("LimitRanger", |s| Box::new(limit_ranger::LimitRanger::new(s))),
    on("ServiceAccount", |s| {
        Box::new(service_account::ServiceAccount::new(s))
    }),
    off("NodeRestriction", |s| {
        Box::new(node_restriction::NodeRestriction::new(s))
    }),
    on("TaintNodesByCondition", |_| {
        Box::new(taint_nodes_by_condition::TaintNodesByCondition)
    }),
    off("AlwaysPullImages", |_| {
        Box::new(always_pull_images::AlwaysPullImages)
    }),
    missing("ImagePolicyWebhook", false),
    missing("PodSecurity", true),
    missing("PodNodeSelector", false),
    on("Priority", |s| Box::new(priority::Priority::new(s))),
    on("DefaultTolerationSeconds", |_| {
        Box::new(default_toleration_seconds::DefaultTolerationSeconds)
    }),
    missing("PodTolerationRestriction", false),
    missing("EventRateLimit", false),
    missing("ExtendedResourceToleration", false),
    on("DefaultStorageClass", |s| {
        Box::new(default_storage_class::DefaultStorageClass::new(s))
    }),
    on("StorageObjectInUseProtection", |_| {
        Box::new(storage_object_in_use_protection::StorageObjectInUseProtection)
    }),
    missing("PodGroupProtection", true),
    off("OwnerReferencesPermissionEnforcement", |s| {
        Box::new(owner_references_permission::OwnerReferencesPermission::new(s))
    }),
    on("PersistentVolumeClaimResize", |s| {
        Box::new(persistent_volume_claim_resize::PersistentVolumeClaimResize::new(
            s,
        ))
    }),
    on("RuntimeClass", |s| Box::new(runtime_class::RuntimeClass::new(s))),
    on("CertificateApproval", |s| {
        Box::new(certificates::Approval::new(s))
    }),
    on("CertificateSigning", |s| Box::new(certificates::Signing::new(s))),
    missing("ClusterTrustBundleAttest", true),
    on("CertificateSubjectRestriction", |_| {
        Box::new(certificates::SubjectRestriction)
    }),
    on("DefaultIngressClass", |s| {
        Box::new(default_ingress_class::DefaultIngressClass::new(s))
    }),
    off("DenyServiceExternalIPs", |_| {
        Box::new(deny_service_external_ips::DenyServiceExternalIps)
    }),
    missing("PodTopologyLabels", true),
    missing("PodGroupWorkloadExists", true),
    missing("NodeDeclaredFeatureValidator", true),
    missing("JobValidation", true),
    missing("PodResizeValidator", true),
    missing("MutatingAdmissionPolicy", true),
    missing("MutatingAdmissionWebhook", true),
    missing("ValidatingAdmissionPolicy", true),
    missing("ValidatingAdmissionWebhook", true),
    on("ResourceQuota", |s| {
        Box::new(resource_quota::ResourceQuota::new(s))
    }),
    off("AlwaysDeny", |_| Box::new(verdicts::AlwaysDeny)),
];

/// Plugins that upstream removed: naming one is no error, and nothing.
const REMOVED: [&str; 3] = ["Initializers", "PodSecurityPolicy", "PersistentVolumeLabel"];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PluginError {
    #[error("{flag} plugin {name:?} is unknown")]
    Unknown { flag: &'static str, name: String },
    #[error("{0} in enable-admission-plugins and disable-admission-plugins overlapped")]
    Overlap(String),
}

/// The names of the plugins that run, from `--enable-admission-plugins` and `--disable-admission-plugins`.
pub fn selected(enable: &[String], disable: &[String]) -> Result<Vec<&'static str>, PluginError> {
    for (flag, names) in [
        ("enable-admission-plugins", enable),
        ("disable-admission-plugins", disable),
    ] {
        for name in names {
            if REMOVED.contains(&name.as_str()) {
                tracing::warn!(plugin = %name, "This admission plugin was removed from Kubernetes; it has no effect");
            } else if !PLUGINS.iter().any(|p| p.name == name) {
                return Err(PluginError::Unknown {
                    flag,
                    name: name.clone(),
                });
            }
        }
    }
    let both: Vec<&str> = enable
        .iter()
        .filter(|n| disable.contains(n))
        .map(String::as_str)
        .collect();
    if !both.is_empty() {
        return Err(PluginError::Overlap(both.join(",")));
    }
    let named = |names: &[String], plugin: &Entry| names.iter().any(|n| n == plugin.name);
    for plugin in PLUGINS.iter().filter(|p| p.make.is_none() && named(enable, p)) {
        tracing::warn!(
            plugin = plugin.name,
            "This admission plugin is not implemented yet; it has no effect"
        );
    }
    let runs = |p: &&Entry| p.make.is_some() && (named(enable, p) || (p.default_on && !named(disable, p)));
    Ok(PLUGINS.iter().filter(runs).map(|p| p.name).collect())
}

pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    escalation: EscalationCheck,
}

impl Chain {
    pub fn new(names: &[&'static str], seams: &Seams, escalation: EscalationCheck) -> Chain {
        let makes = PLUGINS
            .iter()
            .filter(|p| names.contains(&p.name))
            .filter_map(|p| p.make);
        Chain {
            plugins: makes.map(|make| make(seams)).collect(),
            escalation,
        }
    }

    async fn admit_all(&self, a: &mut Attributes) -> Result<(), StatusError> {
        for plugin in &self.plugins {
            if plugin.operations().contains(&a.operation) {
                patiently(a, |a| plugin.admit(a)).await?;
            }
        }
        Ok(())
    }

    async fn validate_all(&self, a: &mut Attributes) -> Result<(), StatusError> {
        for plugin in &self.plugins {
            if plugin.operations().contains(&a.operation) {
                patiently(a, |a| plugin.validate(a)).await?;
            }
        }
        match a.operation {
            Operation::Create | Operation::Update => self.escalation.validate(a),
            _ => Ok(()),
        }
    }
}

async fn patiently(a: &mut Attributes, ask: impl Fn(&mut Attributes) -> Verdict) -> Result<(), StatusError> {
    let mut asked = 0;
    loop {
        match ask(a) {
            Ok(()) => return Ok(()),
            Err(Refusal::Status(error)) => return Err(error),
            Err(Refusal::NotYet { error, attempts, .. }) if asked >= attempts => return Err(error),
            Err(Refusal::NotYet { pause, .. }) => tokio::time::sleep(pause).await,
        }
        asked += 1;
    }
}

impl Admission for Chain {
    fn admit<'a>(&'a self, attributes: &'a mut Attributes) -> BoxFuture<'a, Result<(), StatusError>> {
        Box::pin(self.admit_all(attributes))
    }

    fn validate<'a>(&'a self, attributes: &'a mut Attributes) -> BoxFuture<'a, Result<(), StatusError>> {
        Box::pin(self.validate_all(attributes))
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            || self.plugins.iter().any(|p| p.operations().contains(&operation))
    }
}

/// `pods "x" is forbidden: why`.
fn forbidden(a: &Attributes, why: impl std::fmt::Display) -> Refusal {
    Refusal::Status(status::forbidden(
        GroupResource::new(&a.resource_group, &a.resource),
        &a.name,
        why,
    ))
}

/// The main resource itself, not a subresource of it.
fn is_main(a: &Attributes, group: &str, resource: &str) -> bool {
    a.subresource.is_empty() && a.is_resource(group, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn default_plugins_run_in_upstreams_order() {
        let plugins = selected(&names(&["NodeRestriction"]), &names(&["ResourceQuota"])).expect("known");
        let at = |name: &str| plugins.iter().position(|p| *p == name);
        assert!(
            at("NamespaceLifecycle") < at("LimitRanger")
                && at("LimitRanger") < at("ServiceAccount")
                && at("ServiceAccount") < at("NodeRestriction")
        );
        assert_eq!((at("ResourceQuota"), at("AlwaysDeny")), (None, None));
    }

    #[test]
    fn wrong_names_are_refused_and_removed_ones_are_not() {
        let error = selected(&names(&["NodeRestrictions"]), &[]).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            r#"enable-admission-plugins plugin "NodeRestrictions" is unknown"#
        );
        assert!(selected(&names(&["Initializers"]), &[]).is_ok());
        assert!(selected(&names(&["Priority"]), &names(&["Priority"])).is_err());
    }
}
