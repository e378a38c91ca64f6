//! HTTP verbs on resources.
//!
//! `Endpoints::handle` is the innermost handler of the filter chain: it finds the `ResourceEndpoint` that the
//! `RequestInfo` names and calls one of `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`; `negotiation` reads and
//! writes bodies; everything that is not a resource goes to what plugged in through `seam`.

pub mod seam;
