//! The API as data: what kube-apiserver knows about objects, without IO and without a clock.
//!
//! # One pod's way through
//!
//! A `POST` brings JSON (or YAML, or protobuf). [`schema`] knows the type of `v1 Pod`: a table read from the text files in
//! `schema/`, one line a field. [`json::decode`] ([`yaml::decode`], [`protobuf::decode`]) reads the body against that type in
//! one pass and leaves a [`value::Value`]: a tree in *Go's image*, with exactly the fields that Go would print after decoding
//! it, in its order. Unknown and duplicate fields are errors or warnings, in upstream's words.
//!
//! [`defaults::apply`] fills in what the table and a few named hooks say. The strategy reads and changes the tree by path
//! (`pod.str_at("spec.nodeName")`, [`meta`]), checks it with [`validation`] and reports with [`field`] errors, which
//! [`status`] turns into the `Status` that the client gets. [`protobuf::encode_wrapped`] makes the stored bytes, gogo's to the
//! byte. From then on nothing is parsed: [`protobuf::to_json`] streams stored bytes out as JSON, and
//! [`protobuf::with_resource_version`] splices the revision into a protobuf answer.
//!
//! A `PATCH` works on the tree of the stored object: [`patch`] changes it without looking at the schema (strategic merge looks up
//! merge keys), then [`json::conform`] brings the result back into the image, with all of decoding's checks.
//!
//! [`selector`] decides which objects a list or watch returns; [`quantity`] and [`time`] are the two scalars with rules of their
//! own.
//!
//! # Invariants
//!
//! - Decoders take bytes from anyone: they never panic, their depth is limited (`json::MAX_DEPTH`), and no document costs more
//!   than `n log n`.
//! - A typed `Value` is in Go's image after `decode`, `conform` and `apply`. Hand-made changes may leave it (a field out of order,
//!   a zero that Go omits): protobuf does not mind, JSON shows it, `conform` mends it.
//! - `Value::Raw` is compact, checked JSON.
//!
//! # Not here
//!
//! Custom resources have no type yet: they are decoded without one, as sorted maps. Conversion between versions, managed
//! fields and OpenAPI belong to kube-apiserver and read the same table.

pub mod schema;
pub mod value;

mod image;

pub mod json;
pub mod protobuf;
pub mod yaml;

pub mod defaults;
pub mod patch;

pub mod field;
pub mod meta;
pub mod selector;
pub mod status;
pub mod validation;

pub mod quantity;
pub mod time;
