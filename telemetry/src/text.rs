//! The text of `/metrics`.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::process::ProcessCollector;

/// The media type of [`encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry with what every daemon shows: `edgelog_build_info` and the process's own use of the machine.
pub fn registry(program: &'static str, version: &'static str) -> Registry {
    let mut registry = Registry::default();
    let info = Info::new([("program", program), ("version", version)]);
    registry.register("edgelog_build", "The program and its version; the value is always 1", info);
    registry.register_collector(Box::new(ProcessCollector));
    registry
}

/// All metrics as OpenMetrics text.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail; should it one day, half the metrics are better than none.
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        tracing::warn!("the metrics could not be encoded");
    }
    text
}
