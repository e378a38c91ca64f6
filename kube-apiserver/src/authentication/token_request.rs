//! `serviceaccounts/token`: a signed token for an account, bound to a pod, secret or node, for a while.

use std::sync::Arc;

use apimachinery::field;
use apimachinery::status::{self, GroupResource, StatusError};
use apimachinery::time::Timestamp;
use apimachinery::value::Value;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::keys::Signer;
use super::{jwt, service_account, unix_now};
use crate::admission::objects::Objects;
use crate::endpoints::seam::{Creater, RequestContext};
use crate::registry::admission::{self, Admission, Operation};
use crate::storage::object::CachedObject;

/// What the projected token of a pod asks for. Such a token lives for a year, so that clients which never
/// reload it go on working, and is marked stale after this time.
pub const WARN_ONLY_EXPIRATION_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_EXPIRATION_SECONDS: i64 = 24 * 365 * 60 * 60;
const MIN_EXPIRATION_SECONDS: i64 = 10 * 60;
const MAX_EXPIRATION_SECONDS: i64 = 1 << 32;
const DEFAULT_EXPIRATION_SECONDS: i64 = 60 * 60;

pub struct TokenRequests {
    pub signer: Signer,
    /// The first `--service-account-issuer`.
    pub issuer: String,
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration`; 0 = no limit.
    pub max_expiration_s: i64,
    /// `--service-account-extend-token-expiration`.
    pub extend_expiration: bool,
    pub objects: Arc<dyn Objects>,
    pub admission: Arc<dyn Admission>,
}

/// What a token is bound to.
#[derive(Default)]
struct Binding {
    pod: Option<Arc<CachedObject>>,
    secret: Option<Arc<CachedObject>>,
    /// Name and uid; the uid is empty when a pod's node is not there (yet).
    node: Option<(String, String)>,
}

impl Creater for TokenRequests {
    fn create<'a>(
        &'a self,
        ctx: &'a RequestContext,
        namespace: &'a str,
        name: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        Box::pin(async move {
            let request = self.admit(ctx, object).await?;
            self.issue(namespace, name, request, unix_now())
        })
    }
}

impl TokenRequests {
    /// NodeRestriction looks at what a node asks a token for.
    async fn admit(&self, ctx: &RequestContext, object: Value) -> Result<Value, StatusError> {
        let mut attributes = admission::Attributes {
            operation: Operation::Create,
            group: "authentication.k8s.io".to_owned(),
            version: "v1".to_owned(),
            kind: "TokenRequest".to_owned(),
            resource_group: String::new(),
            resource: ctx.info.resource.clone(),
            subresource: ctx.info.subresource.clone(),
            namespace: ctx.info.namespace.clone(),
            name: ctx.info.name.clone(),
            user: ctx.user.clone(),
            dry_run: false,
            object: Some(object),
            old: None,
            options: None,
            warnings: Vec::new(),
            audit_annotations: Vec::new(),
        };
        self.admission.admit(&mut attributes).await?;
        self.admission.validate(&mut attributes).await?;
        attributes
            .object
            .ok_or_else(|| status::internal("admission took the token request away"))
    }

    fn issue(&self, namespace: &str, name: &str, mut request: Value, now: i64) -> Result<Value, StatusError> {
        check_meta(&request, namespace, name)?;
        let account = self.objects.get("", "serviceaccounts", namespace, name);
        let account =
            account.ok_or_else(|| status::not_found(GroupResource::new("", "serviceaccounts"), name))?;
        check_uid(&request, name, &account.uid)?;
        self.fill(&mut request, &account, now);
        check_expiration(&request)?;
        let binding = self.binding(&request, namespace, name)?;
        let mut seconds = request
            .int_at("spec.expirationSeconds")
            .unwrap_or(DEFAULT_EXPIRATION_SECONDS);
        if self.max_expiration_s > 0 && seconds > self.max_expiration_s {
            seconds = self.max_expiration_s;
            request.set_at("spec.expirationSeconds", seconds);
        }
        let audiences: Vec<String> = request
            .list_at("spec.audiences")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let warn_only = self.extend_expiration
            && binding.pod.is_some()
            && seconds == WARN_ONLY_EXPIRATION_SECONDS
            && audiences.iter().all(|a| self.audiences.contains(a));
        let lifetime = if warn_only {
            EXTENDED_EXPIRATION_SECONDS
        } else {
            seconds
        };
        let claims = self.claims(
            &account,
            &binding,
            &audiences,
            now,
            lifetime,
            warn_only.then_some(now + seconds),
        );
        let token = jwt::sign(&self.signer, &claims)
            .map_err(|e| status::internal(format!("failed to generate token: {e}")))?;
        let mut answer = Value::Null;
        answer.set("token", token);
        answer.set(
            "expirationTimestamp",
            Timestamp {
                seconds: now + seconds,
                nanos: 0,
            }
            .format(),
        );
        request.set("status", answer);
        Ok(request)
    }

    fn fill(&self, request: &mut Value, account: &CachedObject, now: i64) {
        request.set_at("metadata.name", &*account.name);
        request.set_at("metadata.namespace", &*account.namespace);
        request.set_at("metadata.uid", &*account.uid);
        request.set_at(
            "metadata.creationTimestamp",
            Timestamp {
                seconds: now,
                nanos: 0,
            }
            .format(),
        );
        if request.list_at("spec.audiences").is_empty() {
            request.set_at(
                "spec.audiences",
                self.audiences.iter().map(String::as_str).collect::<Vec<_>>(),
            );
        }
        if request.int_at("spec.expirationSeconds").is_none() {
            request.set_at("spec.expirationSeconds", DEFAULT_EXPIRATION_SECONDS);
        }
    }

    fn binding(&self, request: &Value, namespace: &str, name: &str) -> Result<Binding, StatusError> {
        let mut binding = Binding::default();
        let Some(reference) = request.at("spec.boundObjectRef").filter(|r| !r.is_null()) else {
            return Ok(binding);
        };
        let (api_version, kind, target) = (
            reference.str_at("apiVersion"),
            reference.str_at("kind"),
            reference.str_at("name"),
        );
        let find = |resource: &'static str, namespace: &str| {
            self.objects
                .get("", resource, namespace, target)
                .ok_or_else(|| status::not_found(GroupResource::new("", resource), target))
        };
        let core = !api_version.contains('/');
        let uid = match kind {
            "Pod" if core => {
                let pod = find("pods", namespace)?;
                self.bind_pod(&mut binding, &pod, name)?;
                pod.uid.clone()
            }
            "Node" if core => {
                let node = find("nodes", "")?;
                binding.node = Some((node.name.to_string(), node.uid.to_string()));
                node.uid.clone()
            }
            "Secret" if core => {
                let secret = find("secrets", namespace)?;
                binding.secret = Some(secret.clone());
                secret.uid.clone()
            }
            _ => {
                return Err(status::bad_request(format!(
                    "cannot bind token to object of type {}",
                    apimachinery::schema::Gvk::parse(api_version, kind)
                )));
            }
        };
        match reference.str_at("uid") {
            "" => Ok(binding),
            wanted if wanted == &*uid => Ok(binding),
            wanted => Err(status::conflict(
                GroupResource::new("", kind),
                target,
                format!(
                    "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
                ),
            )),
        }
    }

    fn bind_pod(
        &self,
        binding: &mut Binding,
        pod: &Arc<CachedObject>,
        account: &str,
    ) -> Result<(), StatusError> {
        let value = pod.value();
        if value.str_at("spec.serviceAccountName") != account {
            return Err(status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        let node = value.str_at("spec.nodeName");
        if !node.is_empty() {
            let uid = self
                .objects
                .get("", "nodes", "", node)
                .map(|n| n.uid.to_string())
                .unwrap_or_default();
            binding.node = Some((node.to_owned(), uid));
        }
        binding.pod = Some(pod.clone());
        Ok(())
    }

    fn claims(
        &self,
        account: &CachedObject,
        binding: &Binding,
        audiences: &[String],
        now: i64,
        lifetime: i64,
        warn_after: Option<i64>,
    ) -> serde_json::Value {
        let reference = |o: &CachedObject| json!({ "name": &*o.name, "uid": &*o.uid });
        let mut bound = json!({ "namespace": &*account.namespace, "serviceaccount": reference(account) });
        if let Some(pod) = &binding.pod {
            bound["pod"] = reference(pod);
        }
        if let Some(secret) = &binding.secret {
            bound["secret"] = reference(secret);
        }
        if let Some((name, uid)) = &binding.node {
            bound["node"] = if uid.is_empty() {
                json!({ "name": name })
            } else {
                json!({ "name": name, "uid": uid })
            };
        }
        if let Some(at) = warn_after {
            bound["warnafter"] = at.into();
        }
        json!({
            "iss": self.issuer,
            "sub": service_account::username(&account.namespace, &account.name),
            "aud": audiences,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": bound,
        })
    }
}

fn check_meta(request: &Value, namespace: &str, name: &str) -> Result<(), StatusError> {
    let metadata = field::Path::new("metadata");
    for (key, wanted, what) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
        let given = request.at("metadata").map(|m| m.str_at(key)).unwrap_or_default();
        if !given.is_empty() && given != wanted {
            let error = field::invalid(
                &metadata.child(key),
                given,
                format!("must match the service account {what} if specified"),
            );
            return Err(status::invalid(
                "authentication.k8s.io",
                "TokenRequest",
                name,
                &vec![error],
            ));
        }
    }
    Ok(())
}

fn check_uid(request: &Value, name: &str, uid: &str) -> Result<(), StatusError> {
    let given = request.str_at("metadata.uid");
    if given.is_empty() || given == uid {
        return Ok(());
    }
    let why = format!(
        "the UID in the token request ({given}) does not match the UID of the service account ({uid})"
    );
    Err(status::conflict(
        GroupResource::new("authentication.k8s.io", "TokenRequest"),
        name,
        why,
    ))
}

fn check_expiration(request: &Value) -> Result<(), StatusError> {
    let seconds = request
        .int_at("spec.expirationSeconds")
        .unwrap_or(DEFAULT_EXPIRATION_SECONDS);
    let why = match seconds {
        s if s < MIN_EXPIRATION_SECONDS => "may not specify a duration less than 10 minutes",
        s if s > MAX_EXPIRATION_SECONDS => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let spec = field::Path::new("spec");
    let error = field::invalid(&spec.child("expirationSeconds"), seconds, why);
    Err(status::invalid(
        "authentication.k8s.io",
        "TokenRequest",
        "",
        &vec![error],
    ))
}

#[cfg(test)]
mod tests {
    use super::super::TokenAuthenticator;
    use super::super::keys::tests::new_signer;
    use super::super::service_account::ServiceAccounts;
    use super::*;
    use crate::admission::fake::Cluster;

    const ISSUER: &str = "https://kubernetes.default.svc";

    fn cluster() -> Cluster {
        Cluster::default()
            .with("v1", "ServiceAccount", json!({"metadata": {"namespace": "ns", "name": "sa", "uid": "sa-uid"}}))
            .with("v1", "Node", json!({"metadata": {"name": "n1", "uid": "node-uid"}}))
            .with(
                "v1",
                "Pod",
                json!({"metadata": {"namespace": "ns", "name": "p", "uid": "pod-uid"}, "spec": {"serviceAccountName": "sa", "nodeName": "n1", "containers": []}}),
            )
    }

    fn pair(cluster: Cluster) -> (TokenRequests, ServiceAccounts) {
        let signer = new_signer();
        let objects: Arc<dyn Objects> = Arc::new(cluster);
        let keys = Arc::new(arc_swap::ArcSwap::from_pointee(vec![signer.public.clone()]));
        let audiences = vec![ISSUER.to_owned()];
        let requests = TokenRequests {
            signer,
            issuer: ISSUER.into(),
            audiences: audiences.clone(),
            max_expiration_s: 0,
            extend_expiration: true,
            objects: objects.clone(),
            admission: Arc::new(admission::AlwaysAdmit),
        };
        (
            requests,
            ServiceAccounts {
                issuers: audiences.clone(),
                audiences,
                keys,
                lookup: true,
                objects,
            },
        )
    }

    fn request(spec: serde_json::Value) -> Value {
        serde_json::from_value(json!({ "spec": spec })).expect("value")
    }

    fn bound(uid: &str, seconds: i64) -> Value {
        request(
            json!({"expirationSeconds": seconds, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}),
        )
    }

    #[test]
    fn an_issued_token_authenticates_as_the_account() {
        let (requests, accounts) = pair(cluster());
        let now = unix_now();
        let answer = requests
            .issue("ns", "sa", bound("pod-uid", 3607), now)
            .expect("issued");
        assert_eq!(
            answer.str_at("status.expirationTimestamp"),
            Timestamp {
                seconds: now + 3607,
                nanos: 0
            }
            .format()
        );
        let known = accounts
            .authenticate(answer.str_at("status.token"), &[])
            .expect("valid")
            .expect("known");
        assert_eq!(known.user.name, "system:serviceaccount:ns:sa");
        assert_eq!(
            known.user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:ns"]
        );
        assert_eq!(known.user.extra["authentication.kubernetes.io/node-name"], ["n1"]);
        assert_eq!(known.audiences, [ISSUER]);
    }

    #[test]
    fn a_token_for_someone_else_is_refused() {
        let (requests, accounts) = pair(cluster());
        let answer = requests
            .issue("ns", "sa", request(json!({"audiences": ["vault"]})), unix_now())
            .expect("issued");
        let token = answer.str_at("status.token");
        assert!(accounts.authenticate(token, &[]).is_err_and(|e| {
            e.starts_with(r#"token audiences ["vault"] is invalid for the target audiences"#)
        }));
        assert!(
            accounts
                .authenticate(token, &["vault".to_owned()])
                .is_ok_and(|k| k.is_some())
        );
    }

    #[test]
    fn an_expired_token_and_one_of_a_former_pod_are_refused() {
        let (requests, accounts) = pair(cluster());
        let old = requests
            .issue("ns", "sa", bound("pod-uid", 600), unix_now() - 1000)
            .expect("issued");
        assert_eq!(
            accounts.authenticate(old.str_at("status.token"), &[]),
            Err("service account token has expired".to_owned())
        );
        let gone = requests
            .issue("ns", "sa", bound("pod-uid", 600), unix_now())
            .expect("issued");
        let accounts = ServiceAccounts {
            objects: Arc::new(Cluster::default().with(
                "v1",
                "ServiceAccount",
                json!({"metadata": {"namespace": "ns", "name": "sa", "uid": "sa-uid"}}),
            )),
            ..accounts
        };
        assert_eq!(
            accounts.authenticate(gone.str_at("status.token"), &[]),
            Err("service account token has been invalidated".to_owned())
        );
    }

    #[test]
    fn bad_requests_are_answered_as_upstream() {
        let (requests, _) = pair(cluster());
        let refused = |namespace: &str, name: &str, object: Value| {
            requests.issue(namespace, name, object, 0).expect_err("refused")
        };
        assert_eq!(refused("ns", "nobody", request(json!({}))).code, 404);
        assert_eq!(
            refused("ns", "sa", request(json!({"expirationSeconds": 10}))).code,
            422
        );
        assert_eq!(refused("ns", "sa", bound("other-uid", 600)).code, 409);
        let other =
            request(json!({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "p"}}));
        assert_eq!(
            refused("ns", "sa", other).message,
            "cannot bind token to object of type /v1, Kind=ConfigMap"
        );
    }

    #[test]
    fn only_a_pods_standard_token_lives_for_a_year() {
        let (requests, _) = pair(cluster());
        let lifetime = |object: Value| {
            let answer = requests.issue("ns", "sa", object, 1000).expect("issued");
            let token = jwt::Unverified::parse(answer.str_at("status.token"))
                .expect("jwt")
                .claims::<serde_json::Value>()
                .expect("claims");
            token["exp"].as_i64().expect("exp") - 1000
        };
        assert_eq!(
            lifetime(bound("pod-uid", WARN_ONLY_EXPIRATION_SECONDS)),
            EXTENDED_EXPIRATION_SECONDS
        );
        assert_eq!(lifetime(bound("pod-uid", 3600)), 3600);
        assert_eq!(
            lifetime(request(
                json!({"expirationSeconds": WARN_ONLY_EXPIRATION_SECONDS})
            )),
            WARN_ONLY_EXPIRATION_SECONDS
        );
    }
}
