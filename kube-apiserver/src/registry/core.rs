//! The core group.

pub mod configmaps;
pub mod events;
pub mod namespaces;
pub mod nodes;
pub mod persistentvolumes;
pub mod pods;
pub mod replicationcontrollers;
pub mod secrets;
pub mod services;
