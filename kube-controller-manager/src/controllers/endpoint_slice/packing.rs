//! Fits endpoints into slices: those that have a place keep it, newcomers fill slices that are written anyway, and only what is
//! left over makes new slices. No IO.

use super::desired::{Family, Group, ports_key};
use super::{CONTROLLER, MANAGED_BY, SERVICE_NAME};
use crate::meta::{controller_reference, name};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const HEADLESS: &str = "service.kubernetes.io/headless";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

#[derive(Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

pub fn plan(service: &Service, groups: Vec<Group>, existing: Vec<Arc<EndpointSlice>>, max: usize) -> Plan {
    let mut by_place: HashMap<(String, String), Vec<Arc<EndpointSlice>>> = HashMap::new();
    for slice in existing {
        let place = (
            slice.address_type.clone(),
            ports_key(slice.ports.as_deref().unwrap_or_default()),
        );
        by_place.entry(place).or_default().push(slice);
    }
    let mut plan = Plan::default();
    for group in groups {
        let place = (group.family.address_type().to_owned(), ports_key(&group.ports));
        let here = by_place.remove(&place).unwrap_or_default();
        pack(service, group, here, max, &mut plan);
    }
    plan.delete.extend(by_place.into_values().flatten());
    reuse(&mut plan);
    plan
}

/// A slice to delete and one to create of the same family are one update.
fn reuse(plan: &mut Plan) {
    let mut created = Vec::new();
    for mut slice in std::mem::take(&mut plan.create) {
        let same_family = |old: &Arc<EndpointSlice>| old.address_type == slice.address_type;
        match plan.delete.iter().position(same_family) {
            Some(at) => {
                let old = plan.delete.remove(at);
                let (labels, annotations) = (slice.metadata.labels.take(), slice.metadata.annotations.take());
                slice.metadata = ObjectMeta {
                    labels,
                    annotations,
                    ..old.metadata.clone()
                };
                plan.update.push(slice);
            }
            None => created.push(slice),
        }
    }
    plan.create = created;
}

/// An existing slice on its way to what it should be.
struct Draft {
    old: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn pack(service: &Service, group: Group, existing: Vec<Arc<EndpointSlice>>, max: usize, plan: &mut Plan) {
    let mut wanted: BTreeMap<String, Endpoint> =
        group.endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let mut drafts: Vec<_> = existing
        .into_iter()
        .map(|old| keep_what_stays(service, old, &mut wanted))
        .collect();
    place_newcomers(&mut drafts, &mut wanted, max);
    let mut newcomers: Vec<_> = wanted.into_values().collect();
    while !newcomers.is_empty() {
        let rest = newcomers.split_off(newcomers.len().min(max));
        plan.create.push(slice(
            service,
            group.family,
            &group.ports,
            std::mem::replace(&mut newcomers, rest),
        ));
    }
    settle(service, group.family, &group.ports, drafts, plan);
}

/// Empty slices go, except that a family is never without one: an empty slice says that there is nothing, none says nothing.
fn settle(service: &Service, family: Family, ports: &[EndpointPort], drafts: Vec<Draft>, plan: &mut Plan) {
    let (mut full, mut empty): (Vec<_>, Vec<_>) = drafts.into_iter().partition(|d| !d.endpoints.is_empty());
    let created = plan
        .create
        .iter()
        .any(|s| s.address_type == family.address_type());
    if full.is_empty() && !created {
        match empty.is_empty() {
            true => plan.create.push(slice(service, family, ports, Vec::new())),
            false => full.push(empty.remove(0)),
        }
    }
    plan.delete.extend(empty.into_iter().map(|d| d.old));
    for draft in full.into_iter().filter(|d| d.changed) {
        let template = slice(service, family, ports, draft.endpoints);
        let metadata = ObjectMeta {
            labels: template.metadata.labels,
            annotations: template.metadata.annotations,
            ..draft.old.metadata.clone()
        };
        plan.update.push(EndpointSlice { metadata, ..template });
    }
}

fn keep_what_stays(
    service: &Service,
    old: Arc<EndpointSlice>,
    wanted: &mut BTreeMap<String, Endpoint>,
) -> Draft {
    let mut changed = old.metadata.labels != Some(labels(service));
    let mut endpoints = Vec::new();
    for known in old.endpoints.iter().flatten() {
        match wanted.remove(&identity(known)) {
            Some(endpoint) => {
                changed |= endpoint != *known;
                endpoints.push(endpoint);
            }
            None => changed = true,
        }
    }
    Draft {
        old,
        endpoints,
        changed,
    }
}

/// Into slices that are written anyway; else all into one that has room for all, the fullest first.
fn place_newcomers(drafts: &mut [Draft], wanted: &mut BTreeMap<String, Endpoint>, max: usize) {
    for draft in drafts.iter_mut().filter(|d| d.changed) {
        while draft.endpoints.len() < max {
            let Some((_, endpoint)) = wanted.pop_first() else {
                return;
            };
            draft.endpoints.push(endpoint);
        }
    }
    let fits = |d: &&mut Draft| !d.changed && d.endpoints.len() + wanted.len() <= max;
    let fullest = drafts.iter_mut().filter(fits).max_by_key(|d| d.endpoints.len());
    if let Some(draft) = fullest.filter(|_| !wanted.is_empty()) {
        draft.endpoints.extend(std::mem::take(wanted).into_values());
        draft.changed = true;
    }
}

/// The same pod at the same addresses.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|r| r.uid.as_deref())
        .unwrap_or("");
    format!("{uid}/{}", endpoint.addresses.join(","))
}

fn slice(
    service: &Service,
    family: Family,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let now = k8s_openapi::jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            annotations: Some([(TRIGGER_TIME.to_owned(), now)].into()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.address_type().into(),
        ports: Some(ports.to_vec()).filter(|p| !p.is_empty()),
        endpoints: Some(endpoints),
    }
}

/// The service's own, and what marks the slice as its.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels
}
