//! Properties of the whole crate, over every kind of the schema and over bytes that nobody meant to be an object.

mod fixtures;
mod generate;
mod hostile_input;
mod round_trips;
