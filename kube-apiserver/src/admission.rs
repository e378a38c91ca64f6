//! What a write must satisfy beyond its own shape: the admission plugins, in upstream's order.

#[cfg(test)]
pub mod fake;
pub mod objects;
pub mod pod_references;
