//! Requests on one resource, typed by what it holds.

use crate::error::Error;
use crate::options::{DeleteOptions, ListOptions, Patch, Query, encode_into};
use crate::watch::WatchStream;
use crate::{Client, Object};
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::sync::Arc;

/// Where a resource lives: known at compile time for a k8s-openapi type, from discovery otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceType {
    pub group: String,
    pub version: String,
    /// The plural, as in the path: `pods`.
    pub resource: String,
    pub kind: String,
    pub namespaced: bool,
}

impl ResourceType {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

pub(crate) fn collection_path(group: &str, version: &str, namespace: Option<&str>, resource: &str) -> String {
    let mut path = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    if let Some(namespace) = namespace {
        path.push_str("/namespaces/");
        encode_into(namespace, &mut path);
    }
    path.push('/');
    path.push_str(resource);
    path
}

/// One page of a list.
#[derive(Deserialize, Debug)]
#[serde(bound = "T: DeserializeOwned")]
pub struct List<T> {
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default = "Vec::new", deserialize_with = "null_is_empty")]
    pub items: Vec<T>,
}

/// Go encodes a nil slice as null.
fn null_is_empty<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl<T> List<T> {
    pub fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or("")
    }

    pub fn continue_token(&self) -> Option<&str> {
        self.metadata.continue_.as_deref().filter(|t| !t.is_empty())
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Accept {
    Json,
    /// Bodies reduced to metadata by the server.
    Metadata,
}

impl Accept {
    pub(crate) fn header(&self) -> &'static str {
        match self {
            Accept::Json => "application/json",
            Accept::Metadata => {
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
            }
        }
    }

    fn list_header(&self) -> &'static str {
        match self {
            Accept::Json => "application/json",
            Accept::Metadata => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
            }
        }
    }
}

pub struct Api<T> {
    client: Client,
    /// The collection's path, namespace included when there is one.
    collection: Arc<str>,
    accept: Accept,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Api<T> {
    fn clone(&self) -> Self {
        Api {
            client: self.client.clone(),
            collection: self.collection.clone(),
            accept: self.accept,
            of: PhantomData,
        }
    }
}

impl<T> Api<T> {
    pub(crate) fn new(client: Client, collection: String, accept: Accept) -> Self {
        Api {
            client,
            collection: collection.into(),
            accept,
            of: PhantomData,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn path_of_collection(&self) -> &str {
        &self.collection
    }

    fn path(&self, name: &str, subresource: Option<&str>) -> String {
        let mut path = self.collection.to_string();
        path.push('/');
        encode_into(name, &mut path);
        if let Some(subresource) = subresource {
            path.push('/');
            path.push_str(subresource);
        }
        path
    }
}

impl<T: Object> Api<T> {
    pub async fn get(&self, name: &str) -> Result<T, Error> {
        self.client
            .request(Method::GET, self.path(name, None), self.accept.header(), None)
            .await
    }

    pub async fn list(&self, options: &ListOptions) -> Result<List<T>, Error> {
        let path = format!("{}{}", self.collection, options.query(false).as_str());
        self.client
            .request(Method::GET, path, self.accept.list_header(), None)
            .await
    }

    /// All pages of a list, with the resourceVersion of the snapshot they came from.
    pub async fn list_all(&self, options: &ListOptions) -> Result<List<T>, Error> {
        let mut options = ListOptions {
            limit: options.limit.or(Some(500)),
            ..options.clone()
        };
        let mut all = self.list(&options).await?;
        while let Some(token) = all.continue_token() {
            options.continue_token = Some(token.to_owned());
            // A continuation names its own snapshot; both together are refused.
            (options.resource_version, options.resource_version_match) = (None, None);
            let page = self.list(&options).await?;
            all.metadata = page.metadata;
            all.items.extend(page.items);
        }
        Ok(all)
    }

    pub async fn create(&self, object: &T) -> Result<T, Error> {
        let body = json_body(object, || crate::object_key(object))?;
        self.client
            .request(
                Method::POST,
                self.collection.to_string(),
                self.accept.header(),
                Some(body),
            )
            .await
    }

    pub async fn update(&self, object: &T) -> Result<T, Error> {
        self.put(object, None).await
    }

    pub async fn update_status(&self, object: &T) -> Result<T, Error> {
        self.put(object, Some("status")).await
    }

    async fn put(&self, object: &T, subresource: Option<&str>) -> Result<T, Error> {
        let name = object.metadata().name.as_deref().unwrap_or("");
        let body = json_body(object, || crate::object_key(object))?;
        self.client
            .request(
                Method::PUT,
                self.path(name, subresource),
                self.accept.header(),
                Some(body),
            )
            .await
    }

    pub async fn patch(&self, name: &str, patch: &Patch, subresource: Option<&str>) -> Result<T, Error> {
        let path = self.path(name, subresource) + patch.query().as_str();
        let body = Payload {
            content_type: patch.content_type(),
            bytes: json_body(patch.body(), || name.to_owned())?.bytes,
        };
        self.client
            .request(Method::PATCH, path, self.accept.header(), Some(body))
            .await
    }

    /// The answer is the object when it lingers (finalizers, graceful deletion) and a Status when it is gone.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<(), Error> {
        let body = json_body(options, || name.to_owned())?;
        let answer: serde::de::IgnoredAny = self
            .client
            .request(
                Method::DELETE,
                self.path(name, None),
                "application/json",
                Some(body),
            )
            .await?;
        let serde::de::IgnoredAny = answer;
        Ok(())
    }

    pub async fn delete_collection(&self, options: &DeleteOptions, which: &ListOptions) -> Result<(), Error> {
        let body = json_body(options, || self.collection.to_string())?;
        let path = format!("{}{}", self.collection, which.query(false).as_str());
        let answer: serde::de::IgnoredAny = self
            .client
            .request(Method::DELETE, path, "application/json", Some(body))
            .await?;
        let serde::de::IgnoredAny = answer;
        Ok(())
    }

    /// POST to a subresource: `binding`, `token`, `eviction`.
    pub async fn create_subresource<B: Serialize, R: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<R, Error> {
        self.send_subresource(Method::POST, name, subresource, body).await
    }

    /// PUT of a subresource whose kind is not `T`: `scale`, `approval`, `finalize`.
    pub async fn replace_subresource<B: Serialize, R: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<R, Error> {
        self.send_subresource(Method::PUT, name, subresource, body).await
    }

    async fn send_subresource<B: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<R, Error> {
        let payload = json_body(body, || format!("{name}/{subresource}"))?;
        let path = self.path(name, Some(subresource));
        self.client
            .request(method, path, "application/json", Some(payload))
            .await
    }

    /// Events from `options.resource_version` on. The stream ends when the server ends it.
    pub async fn watch(&self, options: &ListOptions) -> Result<WatchStream<T>, Error> {
        let mut query: Query = options.query(true);
        if options.timeout_seconds.is_none() {
            query.add("timeoutSeconds", &crate::watch::timeout_seconds().to_string());
        }
        let path = format!("{}{}", self.collection, query.as_str());
        let body = self
            .client
            .open(Method::GET, path.clone(), self.accept.header())
            .await?;
        Ok(WatchStream::new(body, path))
    }
}

/// A request body with its media type.
pub struct Payload {
    pub content_type: &'static str,
    pub bytes: bytes::Bytes,
}

pub(crate) fn json_body<B: Serialize + ?Sized>(
    body: &B,
    what: impl Fn() -> String,
) -> Result<Payload, Error> {
    let bytes = serde_json::to_vec(body).map_err(|source| Error::Encode { what: what(), source })?;
    Ok(Payload {
        content_type: "application/json",
        bytes: bytes.into(),
    })
}

/// A body that says `kind: Status`, or a plain text from something in between.
pub(crate) fn refusal(code: u16, retry_after: Option<i32>, body: &[u8]) -> Error {
    let mut status = serde_json::from_slice::<Status>(body)
        .ok()
        .filter(|s| s.code.is_some() || s.reason.is_some());
    let status = status.get_or_insert_with(|| plain_refusal(code, body));
    if let Some(seconds) = retry_after {
        let details = status.details.get_or_insert_default();
        details.retry_after_seconds.get_or_insert(seconds);
    }
    Error::Api(Box::new(std::mem::take(status)))
}

/// The reasons upstream's client gives to answers that carry none.
fn plain_refusal(code: u16, body: &[u8]) -> Status {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        406 => "NotAcceptable",
        409 => "Conflict",
        410 => "Gone",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        500.. => "InternalError",
        _ => "Unknown",
    };
    let text: String = String::from_utf8_lossy(body).trim().chars().take(1024).collect();
    let message = if text.is_empty() {
        format!("the server answered {code}")
    } else {
        text
    };
    Status {
        code: Some(i32::from(code)),
        reason: Some(reason.into()),
        message: Some(message),
        ..Status::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_s_plain_503_becomes_a_typed_error_with_its_retry_after() {
        let error = refusal(503, Some(2), b"upstream connect error\n");
        assert_eq!((error.reason(), error.code()), ("ServiceUnavailable", Some(503)));
        assert_eq!(error.retry_after(), Some(std::time::Duration::from_secs(2)));
        assert_eq!(error.to_string(), "upstream connect error");
    }

    #[test]
    fn a_status_body_keeps_its_reason_and_details() {
        let body = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404}"#;
        let error = refusal(404, None, body);
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "pods \"x\" not found");
    }

    #[test]
    fn a_null_item_list_is_empty() {
        let list: List<k8s_openapi::api::core::v1::Pod> =
            serde_json::from_str(r#"{"metadata":{"resourceVersion":"7"},"items":null}"#).unwrap();
        assert_eq!((list.items.len(), list.resource_version()), (0, "7"));
    }
}
