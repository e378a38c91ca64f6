//! A pod's status as the API shows it: [`generate`] computes it (pure), [`reporter`] tells the API server.

pub mod conditions;
pub mod generate;
pub mod reporter;
