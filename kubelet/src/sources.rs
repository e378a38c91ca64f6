//! Where pods come from: the API server ([`api`]) and files ([`files`], static pods with [`defaults`]).

pub mod api;
pub mod defaults;
pub mod files;
