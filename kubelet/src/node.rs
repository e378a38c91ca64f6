//! This machine as a Node: what it has ([`machine`]), how it is ([`conditions`]), and telling the API server ([`register`], [`lease`]).

pub mod conditions;
pub mod lease;
pub mod machine;
pub mod register;
