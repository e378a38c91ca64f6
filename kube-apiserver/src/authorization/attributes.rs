//! What an authorizer is asked: who wants to do what to which thing.

use crate::request_info::{RequestInfo, field_requirements};
use crate::user::UserInfo;

#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub resource_request: bool,
    pub verb: &'a str,
    pub api_group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// Raw field selector of a list, watch or deletecollection.
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of_request(user: &'a UserInfo, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            resource_request: info.is_resource_request,
            verb: &info.verb,
            api_group: &info.api_group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: &info.field_selector,
        }
    }

    /// A question about a resource, asked by the server itself (escalation checks, review APIs).
    pub fn of_resource(
        user: &'a UserInfo,
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Self {
        Attributes {
            user,
            resource_request: true,
            verb,
            api_group: group,
            resource,
            subresource: "",
            namespace,
            name,
            path: "",
            field_selector: "",
        }
    }

    pub fn of_path(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Self {
        Attributes {
            resource_request: false,
            path,
            ..Attributes::of_resource(user, verb, "", "", "", "")
        }
    }

    /// Whether the field selector demands `field = value`.
    pub fn selects(&self, field: &str, value: &str) -> bool {
        !self.field_selector.is_empty()
            && field_requirements(self.field_selector)
                .iter()
                .any(|(f, v)| f == field && v == value)
    }

    pub fn combined_resource(&self) -> std::borrow::Cow<'a, str> {
        if self.subresource.is_empty() {
            self.resource.into()
        } else {
            format!("{}/{}", self.resource, self.subresource).into()
        }
    }

    /// The sentence of a 403, as clients match on it.
    pub fn forbidden_message(&self) -> String {
        let (user, verb) = (&self.user.name, self.verb);
        let text = if !self.resource_request {
            format!("User {user:?} cannot {verb} path {:?}", self.path)
        } else {
            let (resource, group) = (self.combined_resource(), self.api_group);
            let scope = match self.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
        };
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    }
}
