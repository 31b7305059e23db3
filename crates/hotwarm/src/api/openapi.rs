//! The OpenAPI document.
pub(super) fn document() -> serde_json::Value {
    serde_json::json!({})
}
