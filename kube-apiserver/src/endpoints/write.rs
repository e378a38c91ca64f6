//! POST, PUT, PATCH and DELETE on stored resources.

use std::sync::Arc;

use apimachinery::json::{self, FieldValidation};
use apimachinery::meta::Meta;
use apimachinery::patch;
use apimachinery::schema::{Gvk, registry};
use apimachinery::status::{self, GroupResource, StatusError};
use apimachinery::value::Value;
use apimachinery::{defaults, yaml};
use bytes::Bytes;
use component_base::http::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};

use super::Endpoints;
use super::audited;
use super::body;
use super::list;
use super::negotiation::{Media, Output};
use super::present::Presenter;
use super::query::Query;
use super::respond;
use super::seam::RequestContext;
use crate::registry::convert;
use crate::registry::store::{DeleteOptions, Preconditions, Propagation, WriteOptions, Written};
use crate::registry::{ResourceEndpoint, Store};
use crate::storage::object::CachedObject;

/// One write request, taken apart.
pub struct Call<'a> {
    pub endpoints: &'a Endpoints,
    pub ctx: &'a RequestContext,
    pub endpoint: &'a Arc<ResourceEndpoint>,
    pub store: &'a Arc<Store>,
    pub headers: &'a HeaderMap,
    pub query: &'a Query,
    pub body: Bytes,
}

impl Call<'_> {
    pub fn namespace(&self) -> &str {
        if self.endpoint.resource.namespaced {
            &self.ctx.info.namespace
        } else {
            ""
        }
    }

    pub fn name(&self) -> &str {
        &self.ctx.info.name
    }

    fn gvk(&self) -> Gvk<'_> {
        self.endpoint.shape.gvk()
    }

    pub fn options(&self) -> Result<WriteOptions, StatusError> {
        Ok(WriteOptions {
            dry_run: body::dry_run(self.query)?,
            warnings: Vec::new(),
        })
    }

    fn output(&self) -> Result<Output, StatusError> {
        Output::negotiate(self.headers, self.query)
    }

    /// The body as an object of the stored version.
    fn decode(&self, warnings: &mut Vec<String>) -> Result<Value, StatusError> {
        let validation = body::field_validation(self.query)?;
        let mut object = body::decode(
            &self.body,
            self.headers,
            self.gvk(),
            self.endpoint.shape.ty,
            validation,
            warnings,
        )?;
        audited::request_object(self.ctx, &object);
        convert::to_storage(self.endpoint, &mut object);
        Ok(object)
    }

    pub fn object(
        &self,
        code: StatusCode,
        output: Output,
        object: &CachedObject,
        warnings: &[String],
    ) -> Response<Body> {
        let presenter = Presenter::new(
            self.endpoint,
            &*self.endpoints.plugs.printers,
            output,
            self.query.get("includeObject"),
        );
        let mut response = respond::bytes(code, output.media, presenter.body(object));
        respond::add_warnings(response.headers_mut(), warnings);
        response
    }

    fn written(
        &self,
        output: Output,
        written: &Written,
        mut early: Vec<String>,
        options: &WriteOptions,
    ) -> Response<Body> {
        early.extend(options.warnings.iter().cloned());
        let code = if written.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        self.object(code, output, &written.object, &early)
    }

    pub async fn create(&self) -> Result<Response<Body>, StatusError> {
        let output = self.output()?;
        let mut warnings = Vec::new();
        let object = self.decode(&mut warnings)?;
        let mut options = self.options()?;
        let written = self
            .store
            .create(self.ctx, self.namespace(), object, &mut options)
            .await?;
        Ok(self.written(output, &written, warnings, &options))
    }

    pub async fn update(&self, subresource: &str) -> Result<Response<Body>, StatusError> {
        let output = self.output()?;
        let mut warnings = Vec::new();
        let object = self.decode(&mut warnings)?;
        self.check_name(&object)?;
        let mut options = self.options()?;
        let change = |_: &Value| Ok(object.clone());
        let written = self
            .store
            .update(
                self.ctx,
                self.namespace(),
                self.name(),
                subresource,
                &change,
                &mut options,
            )
            .await?;
        Ok(self.written(output, &written, warnings, &options))
    }

    fn check_name(&self, object: &Value) -> Result<(), StatusError> {
        match object.name() {
            "" => Err(status::bad_request("name must be provided".to_string())),
            name if name == self.name() => Ok(()),
            name => Err(status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.name()
            ))),
        }
    }

    pub async fn patch(&self, subresource: &str) -> Result<Response<Body>, StatusError> {
        let output = self.output()?;
        let patch = Patch::read(self.headers, &self.body)?;
        let validation = body::field_validation(self.query)?;
        let mut options = self.options()?;
        let change = |old: &Value| self.apply(&patch, old, validation).map(|(new, _)| new);
        let written = self
            .store
            .update(
                self.ctx,
                self.namespace(),
                self.name(),
                subresource,
                &change,
                &mut options,
            )
            .await?;
        Ok(self.written(output, &written, Vec::new(), &options))
    }

    /// The patch is against the endpoint's version, whatever is stored.
    fn apply(
        &self,
        patch: &Patch,
        old: &Value,
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), StatusError> {
        if old.is_null() {
            return Err(self.store.not_found(self.name()));
        }
        let ty = self.endpoint.shape.ty;
        let mut tree = old.clone();
        convert::from_storage(self.endpoint, &mut tree);
        patch.apply(&mut tree, ty).map_err(status::unpatchable)?;
        let decoded =
            json::conform(&tree, ty, validation).map_err(|e| status::undecodable(self.gvk(), &e))?;
        let mut new = decoded.value;
        defaults::apply(&mut new, ty);
        if new.name() != old.name() && !new.name().is_empty() {
            let message = format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                new.name(),
                old.name()
            );
            return Err(status::bad_request(message));
        }
        convert::to_storage(self.endpoint, &mut new);
        Ok((new, decoded.warnings))
    }

    pub async fn delete(&self) -> Result<Response<Body>, StatusError> {
        let output = self.output()?;
        let mut options = delete_options(&self.body, self.headers, self.query)?;
        let deleted = self
            .store
            .delete(self.ctx, self.namespace(), self.name(), &mut options)
            .await?;
        if !deleted.gone || self.store.traits.returns_deleted {
            let accepted = !deleted.gone && options.orphan_dependents == Some(false);
            let code = if accepted {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            };
            return Ok(self.object(code, output, &deleted.object, &options.warnings));
        }
        let resource = GroupResource::new(self.endpoint.resource.group, self.endpoint.resource.resource);
        let success = status::success(resource, &deleted.object.name, &deleted.object.uid);
        let mut response = respond::value(StatusCode::OK, output, &success);
        respond::add_warnings(response.headers_mut(), &options.warnings);
        Ok(response)
    }

    /// Deletes what a list with the same selectors shows; answers with that list.
    pub async fn delete_collection(&self) -> Result<Response<Body>, StatusError> {
        let interest = list::interest(self.endpoint, self.namespace(), "", self.query)?;
        let options = delete_options(&self.body, self.headers, self.query)?;
        self.store.consistent().await?;
        let snapshot = self.store.snapshot();
        let doomed: Vec<_> = snapshot
            .iter()
            .filter(|object| interest.matches(object))
            .cloned()
            .collect();
        for object in &doomed {
            let mut options = options.clone();
            match self
                .store
                .delete(self.ctx, &object.namespace, &object.name, &mut options)
                .await
            {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        let printers = &self.endpoints.plugs.printers;
        list::write_all(
            self.endpoint,
            printers,
            self.headers,
            self.query,
            self.namespace(),
            doomed,
            self.store.feed_revision(),
        )
    }
}

enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_YAML: &str = "application/apply-patch+yaml";

impl Patch {
    fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Patch, StatusError> {
        let text = headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let tree = || {
            json::decode_untyped(bytes).map_err(|e| status::bad_request(format!("error decoding patch: {e}")))
        };
        match text.split(';').next().unwrap_or_default().trim() {
            JSON_PATCH => Ok(Patch::Json(tree()?)),
            MERGE_PATCH => Ok(Patch::Merge(object(tree()?)?)),
            STRATEGIC_PATCH => Ok(Patch::Strategic(object(tree()?)?)),
            APPLY_YAML => {
                // Checked, so that a broken document is told first.
                yaml::decode(bytes, None, FieldValidation::Ignore)
                    .map_err(|e| status::bad_request(format!("error decoding YAML: {e}")))?;
                Err(status::unsupported_media_type(&[
                    JSON_PATCH,
                    MERGE_PATCH,
                    STRATEGIC_PATCH,
                ]))
            }
            _ => Err(status::unsupported_media_type(&[
                JSON_PATCH,
                MERGE_PATCH,
                STRATEGIC_PATCH,
            ])),
        }
    }

    fn apply(&self, tree: &mut Value, ty: apimachinery::schema::TypeId) -> Result<(), patch::PatchError> {
        match self {
            Patch::Json(ops) => patch::json_patch(tree, ops),
            Patch::Merge(patch) => {
                patch::merge_patch(tree, patch);
                Ok(())
            }
            Patch::Strategic(patch) => patch::strategic(tree, patch, ty),
        }
    }
}

fn object(tree: Value) -> Result<Value, StatusError> {
    match tree.as_object() {
        Some(_) => Ok(tree),
        None => Err(status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            tree.json_type()
        ))),
    }
}

/// From the body, or from the query where there is no body.
pub fn delete_options(
    bytes: &[u8],
    headers: &HeaderMap,
    query: &Query,
) -> Result<DeleteOptions, StatusError> {
    let ty = registry()
        .named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
        .ok_or_else(|| status::internal("DeleteOptions are not in the schema"))?;
    let tree = body::decode_options(bytes, headers, "DeleteOptions", ty)?;
    let mut options = DeleteOptions {
        dry_run: body::dry_run(query)?,
        ..Default::default()
    };
    if tree.is_null() {
        options.grace_period_seconds = query.int("gracePeriodSeconds")?;
        options.propagation = propagation(query.get("propagationPolicy"))?;
        options.orphan_dependents = query.optional_flag("orphanDependents");
    } else {
        from_tree(&tree, &mut options)?;
    }
    if options.propagation.is_some() && options.orphan_dependents.is_some() {
        let path = apimachinery::field::Path::new("propagationPolicy");
        let shown = tree.str_at("propagationPolicy").to_owned();
        let error = apimachinery::field::invalid(
            &path,
            shown,
            "orphanDependents and deletionPropagation cannot be both set",
        );
        return Err(status::invalid("meta.k8s.io", "DeleteOptions", "", &vec![error]));
    }
    Ok(options)
}

fn from_tree(tree: &Value, options: &mut DeleteOptions) -> Result<(), StatusError> {
    let text = |path: &str| tree.at(path).and_then(Value::as_str).map(str::to_owned);
    options.grace_period_seconds = tree.int_at("gracePeriodSeconds");
    options.preconditions = Preconditions {
        uid: text("preconditions.uid"),
        resource_version: text("preconditions.resourceVersion"),
    };
    options.propagation = propagation(tree.str_at("propagationPolicy"))?;
    options.orphan_dependents = tree.at("orphanDependents").and_then(Value::as_bool);
    options.dry_run |= tree.list_at("dryRun").iter().any(|v| v.as_str() == Some("All"));
    Ok(())
}

fn propagation(text: &str) -> Result<Option<Propagation>, StatusError> {
    match text {
        "" => Ok(None),
        "Orphan" => Ok(Some(Propagation::Orphan)),
        "Background" => Ok(Some(Propagation::Background)),
        "Foreground" => Ok(Some(Propagation::Foreground)),
        other => {
            let path = apimachinery::field::Path::new("propagationPolicy");
            let error = apimachinery::field::not_supported(
                &path,
                other,
                &["Foreground", "Background", "Orphan", "nil"],
            );
            Err(status::invalid("meta.k8s.io", "DeleteOptions", "", &vec![error]))
        }
    }
}

/// For answers that are no stored object.
pub fn tree_answer(
    code: StatusCode,
    headers: &HeaderMap,
    query: &Query,
    value: &Value,
) -> Result<Response<Body>, StatusError> {
    let output = Output::negotiate(headers, query)?;
    let output = match output.media {
        Media::Protobuf | Media::Yaml | Media::Json => Output {
            form: super::negotiation::Form::Object,
            ..output
        },
    };
    Ok(respond::value(code, output, value))
}
