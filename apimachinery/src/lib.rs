//! The API as data. No IO, no clock.

pub mod defaults;
pub mod field;
mod image;
pub mod json;
pub mod meta;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;
pub mod validation;
pub mod value;
pub mod yaml;
