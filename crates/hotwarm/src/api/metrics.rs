//! Metrics.
use crate::agent::Handle;
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) fn page(_agent: &Handle) -> String {
    String::new()
}
