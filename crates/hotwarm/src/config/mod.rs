//! The one configuration file: TOML in, a validated [`Config`] out, or every error at once with line and column.

pub mod model;

pub use model::*;
