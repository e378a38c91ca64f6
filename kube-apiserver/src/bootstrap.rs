//! What the server writes for itself at start: namespaces, default roles, priority classes, the kubernetes service.
//!
//! `start` runs after the caches are filled; `/readyz` waits for it (`poststarthook/...`). Everything here is
//! idempotent and additive, so that any number of servers may start at once.

use std::sync::Arc;

use apimachinery::status::StatusError;

use crate::registry::Registry;

pub mod kubernetes_service;
pub mod policy;
mod reconcile;
pub mod system;
mod write;

pub use kubernetes_service::{KubernetesService, ServiceConfig};
pub use system::AuthenticationInfo;

/// Namespaces come first: the rest lives in them.
pub async fn start(
    registry: &Registry,
    authentication: &AuthenticationInfo,
    service: &Arc<KubernetesService>,
) -> Result<(), StatusError> {
    system::namespaces(registry).await?;
    let (roles, classes, info, kubernetes) = tokio::join!(
        reconcile::reconcile(registry, policy::defaults()),
        system::priority_classes(registry),
        system::authentication_configmap(registry, authentication),
        service.ensure(),
    );
    roles.and(classes).and(info).and(kubernetes)
}
