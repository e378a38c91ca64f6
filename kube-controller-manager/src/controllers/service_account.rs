//! Every active namespace has a service account `default`.

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Outcome, Reconciler, Requeue, synced};
use crate::meta::{key_in, name, namespace};
use client::Client;
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

const DEFAULT: &str = "default";

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::new("serviceaccount");
    let (namespaces, accounts) = (
        context.informers.namespaces.start(),
        context.informers.service_accounts.start(),
    );
    context.informers.namespaces.on_event({
        let queue = queue.clone();
        move |event| match event {
            Event::Added(o) | Event::Modified(_, o) => queue.add(name(&o.metadata).to_owned()),
            _ => {}
        }
    });
    context.informers.service_accounts.on_event({
        let queue = queue.clone();
        move |event| match event {
            Event::Deleted(o) if name(&o.metadata) == DEFAULT => queue.add(namespace(&o.metadata).to_owned()),
            _ => {}
        }
    });
    let needs = vec![synced(&namespaces), synced(&accounts)];
    let reconciler = Arc::new(ServiceAccounts {
        client: context.client_for("service-account-controller"),
        namespaces,
        accounts,
    });
    Some(Box::new(Driver {
        name: "serviceaccount-controller",
        queue,
        reconciler,
        workers: 1,
        needs,
    }))
}

struct ServiceAccounts {
    client: Client,
    namespaces: Store<Namespace>,
    accounts: Store<ServiceAccount>,
}

pub fn is_active(namespaces: &Store<Namespace>, name: &str) -> bool {
    let phase = namespaces.get(name).map(|n| {
        n.status
            .as_ref()
            .and_then(|s| s.phase.clone())
            .unwrap_or_default()
    });
    phase.is_some_and(|phase| phase != "Terminating")
}

impl Reconciler for ServiceAccounts {
    async fn reconcile(&self, key: &str) -> Outcome {
        if !is_active(&self.namespaces, key) || self.accounts.get(&key_in(key, DEFAULT)).is_some() {
            return Ok(Requeue::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.into()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match self.client.namespaced(key).create(&account).await {
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(Requeue::Done),
            outcome => outcome.map(|_| Requeue::Done).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::fake::FakeServer;

    fn in_phase(name: &str, phase: &str) -> Namespace {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name}, "status": {"phase": phase}}))
            .unwrap()
    }

    #[tokio::test]
    async fn an_active_namespace_gets_its_account_and_a_terminating_one_does_not() {
        let server = FakeServer::new();
        let namespaces = Store::of([in_phase("a", "Active"), in_phase("b", "Terminating")]);
        let controller = ServiceAccounts {
            client: server.client(),
            namespaces,
            accounts: Store::of([]),
        };
        for key in ["a", "b", "gone"] {
            controller.reconcile(key).await.unwrap();
        }
        assert_eq!(server.writes(), ["POST /api/v1/namespaces/a/serviceaccounts"]);
        controller
            .reconcile("a")
            .await
            .expect("that it exists already is no error");
    }
}
