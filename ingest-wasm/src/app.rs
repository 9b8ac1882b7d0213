//! From a request to its answer.

use model::{Problem, wire};

use crate::body::ByteSource;
use crate::config::ConfigError;
use crate::context::Context;
use crate::ingest::ingest;
use crate::message::{Answer, RequestHead};
use crate::read::{logs, query};
use crate::router::{Route, route};
use crate::storage::Storage;

/// Answers a request.
pub async fn respond<S: Storage>(
    context: &Context<'_, S>,
    head: &RequestHead,
    body: &mut impl ByteSource,
) -> Answer {
    match route(head) {
        Route::Ingest => ingest(context, head, body).await,
        Route::Logs => logs(context, head).await,
        Route::Query => query(context, head).await,
        Route::Health => health(context),
        Route::NotAllowed(allow) => {
            let detail = format!("{} does not take {}", head.path, head.method.as_str());
            Answer::problem(&Problem::new(405, detail)).with("allow", allow)
        }
        Route::Unknown => Answer::problem(&Problem::new(404, format!("there is nothing at {}", head.path))),
    }
}

/// The answer to every request while the configuration cannot be used.
pub fn misconfigured(error: &ConfigError) -> Answer {
    let detail = format!("the component cannot work: {error}; see spin.toml");
    Answer::problem(&Problem::new(500, detail).in_field(error.variable))
}

fn health<S>(context: &Context<'_, S>) -> Answer {
    let body = serde_json::json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "node_id": context.config.node_id,
    });
    Answer::new(200, wire::JSON, body.to_string())
}

#[cfg(test)]
mod tests;
