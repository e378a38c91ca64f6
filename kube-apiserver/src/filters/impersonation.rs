//! `Impersonate-User` and its companions: act as someone else, if allowed to for every part of the identity.

use std::collections::BTreeMap;

use apimachinery::status::{self, StatusError};
use http::HeaderMap;

use super::forbidden;
use crate::authentication::service_account;
use crate::authorization::{Attributes, Authorizers};
use crate::request_info::percent_decode;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// `Ok(None)` when nobody is impersonated. The headers are taken off the request.
pub fn impersonate(
    authorizers: &Authorizers,
    requestor: &UserInfo,
    headers: &mut HeaderMap,
) -> Result<Option<UserInfo>, StatusError> {
    if !headers
        .keys()
        .any(|name| name.as_str().starts_with("impersonate-"))
    {
        return Ok(None);
    }
    let Some(wanted) = wanted(headers)? else {
        return Ok(None);
    };
    let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            subresource,
            ..Attributes::of_resource(requestor, "impersonate", group, resource, namespace, name)
        };
        let verdict = authorizers.authorize(&attributes);
        if verdict.allowed() {
            Ok(())
        } else {
            Err(forbidden(&attributes, &verdict.reason))
        }
    };
    let account = split_service_account(&wanted.name);
    match account {
        Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name)?,
        None => ask("", "users", "", "", &wanted.name)?,
    }
    for group in &wanted.groups {
        ask("", "groups", "", "", group)?;
    }
    for (key, values) in &wanted.extra {
        values
            .iter()
            .try_for_each(|value| ask(AUTHENTICATION_GROUP, "userextras", key, "", value))?;
    }
    if !wanted.uid.is_empty() {
        ask(AUTHENTICATION_GROUP, "uids", "", "", &wanted.uid)?;
    }
    clear(headers);
    Ok(Some(complete(wanted)))
}

fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, StatusError> {
    let texts = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .map(str::to_owned)
            .collect()
    };
    let first = |name: &str| texts(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            extra
                .entry(percent_decode(key, false))
                .or_default()
                .extend(texts(name.as_str()));
        }
    }
    let user = UserInfo {
        name: first(USER),
        uid: first(UID),
        groups: texts(GROUP),
        extra,
    };
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user.groups.is_empty() && user.extra.is_empty() && user.uid.is_empty() {
        return Ok(None);
    }
    Err(status::bad_request(format!(
        "requested {:?} without impersonating a user",
        user.groups
    )))
}

/// A service account brings its groups along; everyone known is authenticated.
fn complete(mut user: UserInfo) -> UserInfo {
    if let (Some((namespace, _)), true) = (split_service_account(&user.name), user.groups.is_empty()) {
        user.groups = service_account::groups(namespace);
    }
    let anonymous = user.name == ANONYMOUS;
    let marked = user.in_group(UNAUTHENTICATED) || (!anonymous && user.in_group(AUTHENTICATED));
    if !marked {
        user.groups
            .push(if anonymous { UNAUTHENTICATED } else { AUTHENTICATED }.to_owned());
    }
    user
}

fn split_service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn clear(headers: &mut HeaderMap) {
    let names: Vec<_> = headers
        .keys()
        .filter(|n| n.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::rbac::{Binding, Metadata, Rbac, Role, RoleRef, Subject};
    use crate::authorization::rules::PolicyRule;

    fn authorizers() -> Authorizers {
        let rbac = Rbac::default();
        let strings = |s: &[&str]| s.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let rule = |resources: &[&str], names: &[&str]| PolicyRule {
            verbs: strings(&["impersonate"]),
            api_groups: strings(&["", AUTHENTICATION_GROUP]),
            resources: strings(resources),
            resource_names: strings(names),
            ..Default::default()
        };
        let rules = vec![
            rule(&["users"], &["jane"]),
            rule(&["groups"], &["dev"]),
            rule(&["serviceaccounts", "userextras/scopes"], &[]),
        ];
        rbac.set_role(Role {
            metadata: Metadata {
                name: "r".into(),
                ..Default::default()
            },
            rules,
        });
        rbac.set_binding(Binding {
            metadata: Metadata {
                name: "b".into(),
                ..Default::default()
            },
            subjects: vec![Subject {
                kind: "User".into(),
                name: "op".into(),
                ..Default::default()
            }],
            role_ref: RoleRef {
                kind: "ClusterRole".into(),
                name: "r".into(),
            },
        });
        Authorizers::new(&["RBAC".to_owned()], Default::default(), vec![], rbac)
    }

    fn act(headers: &[(&'static str, &str)]) -> Result<Option<UserInfo>, StatusError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("value"));
        }
        let result = impersonate(&authorizers(), &UserInfo::new("op", &[]), &mut map);
        assert!(result.is_err() || map.is_empty(), "the headers go no further");
        result
    }

    #[test]
    fn an_allowed_identity_is_taken_on_whole() {
        let jane = act(&[
            (USER, "jane"),
            (GROUP, "dev"),
            ("impersonate-extra-scopes", "view"),
        ])
        .expect("allowed")
        .expect("someone");
        assert_eq!(
            (jane.name.as_str(), jane.groups, jane.extra["scopes"].clone()),
            (
                "jane",
                vec!["dev".to_owned(), AUTHENTICATED.to_owned()],
                vec!["view".to_owned()]
            )
        );
        let bot = act(&[(USER, "system:serviceaccount:ns:bot")])
            .expect("allowed")
            .expect("someone");
        assert_eq!(
            bot.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:ns",
                AUTHENTICATED
            ]
        );
        assert_eq!(act(&[]), Ok(None));
    }

    #[test]
    fn every_part_needs_its_own_right() {
        let refused = |headers: &[(&'static str, &str)]| act(headers).expect_err("refused").message;
        assert_eq!(
            refused(&[(USER, "root")]),
            r#"users "root" is forbidden: User "op" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        assert!(refused(&[(USER, "jane"), (GROUP, "system:masters")]).contains("groups"));
        assert!(refused(&[(USER, "jane"), (UID, "7")]).contains("uids"));
        assert!(refused(&[(USER, "jane"), ("impersonate-extra-other", "x")]).contains("userextras/other"));
        assert_eq!(act(&[(GROUP, "dev")]).expect_err("no user").code, 400);
    }
}
