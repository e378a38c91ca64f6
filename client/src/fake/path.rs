//! Request paths and queries, taken apart.

use std::collections::HashMap;

/// All objects of a resource, or those of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Collection {
    /// `/api/v1` or `/apis/<group>/<version>`.
    pub root: String,
    pub resource: String,
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Collection(Collection),
    Object {
        target: Collection,
        name: String,
        subresource: Option<String>,
    },
}

impl Target {
    pub fn parse(path: &str) -> Option<Target> {
        let mut segments = path.trim_matches('/').split('/').map(decode);
        let root = match segments.next()?.as_str() {
            "api" => format!("/api/{}", segments.next()?),
            "apis" => format!("/apis/{}/{}", segments.next()?, segments.next()?),
            _ => return None,
        };
        let rest: Vec<String> = segments.collect();
        let (namespace, rest) = match rest.as_slice() {
            [first, namespace, rest @ ..]
                if first == "namespaces" && !rest.is_empty() && !is_namespace_subresource(rest) =>
            {
                (Some(namespace.clone()), rest)
            }
            all => (None, all),
        };
        let collection = Collection {
            root,
            resource: rest.first()?.clone(),
            namespace,
        };
        match rest {
            [_] => Some(Target::Collection(collection)),
            [_, name] => Some(Target::Object {
                target: collection,
                name: name.clone(),
                subresource: None,
            }),
            [_, name, subresource] => Some(Target::Object {
                target: collection,
                name: name.clone(),
                subresource: Some(subresource.clone()),
            }),
            _ => None,
        }
    }
}

fn is_namespace_subresource(rest: &[String]) -> bool {
    matches!(rest, [one] if one == "status" || one == "finalize")
}

pub(super) fn query(text: &str) -> HashMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_both_an_object_and_a_place() {
        let Some(Target::Object {
            target,
            name,
            subresource,
        }) = Target::parse("/api/v1/namespaces/a/finalize")
        else {
            panic!("an object")
        };
        assert_eq!(
            (target.resource.as_str(), name.as_str(), subresource.as_deref()),
            ("namespaces", "a", Some("finalize"))
        );
        let Some(Target::Collection(pods)) = Target::parse("/api/v1/namespaces/a/pods") else {
            panic!("a collection")
        };
        assert_eq!(
            (pods.resource.as_str(), pods.namespace.as_deref()),
            ("pods", Some("a"))
        );
    }
}
