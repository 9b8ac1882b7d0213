//! From a request to its answer.

use model::{Problem, wire};

use crate::body::ByteSource;
use crate::config::ConfigError;
use crate::context::Context;
use crate::ingest::ingest;
use crate::key_value::KeyValueError;
use crate::limits;
use crate::message::{Afterwards, Answer, RequestHead, Response};
use crate::read::{logs, query};
use crate::router::{Route, route};
use crate::runtime::Runtime;
use crate::wal::{self, WalReport};

/// Answers a request.
pub async fn respond<R: Runtime>(
    context: &Context<'_, R>,
    head: &RequestHead,
    body: &mut impl ByteSource,
) -> Response {
    let answer = match route(head) {
        Route::Ingest => return ingest(context, head, body).await,
        Route::Replay => return replay(context).await,
        Route::Logs => logs(context, head).await,
        Route::Query => query(context, head).await,
        Route::Wal => report(context).await,
        Route::Health => health(context),
        Route::NotAllowed(allow) => {
            let detail = format!("{} does not take {}", head.path, head.method.as_str());
            Answer::problem(&Problem::new(405, detail)).with("allow", allow)
        }
        Route::Unknown => Answer::problem(&Problem::new(404, format!("there is nothing at {}", head.path))),
    };
    answer.into()
}

/// Does what is to be done when the answer has gone out.
pub async fn follow_up<R: Runtime>(context: &Context<'_, R>, afterwards: Afterwards) {
    let (budget, pause) = match afterwards {
        Afterwards::Nothing => return,
        Afterwards::Replay => (limits::REPLAY_AFTER_RESPONSE, None),
        Afterwards::ReplayAll => (limits::REPLAY_AFTER_DEMAND, Some(limits::REPLAY_PAUSE)),
    };
    wal::replay_in_background(context, budget.into(), pause).await;
}

/// The answer to every request while the configuration cannot be used.
pub fn misconfigured(error: &ConfigError) -> Answer {
    let detail = format!("the component cannot work: {error}; see spin.toml");
    Answer::problem(&Problem::new(500, detail).in_field(error.variable))
}

/// `GET /v1/wal`
async fn report<R: Runtime>(context: &Context<'_, R>) -> Answer {
    match wal::report(context).await {
        Ok(Some(report)) => Answer::new(200, wire::JSON, to_json(report.to_json(context.config))),
        Ok(None) => no_wal(),
        Err(error) => unavailable(&error),
    }
}

/// `POST /v1/wal/replay`: what was done, and what is left.
async fn replay<R: Runtime>(context: &Context<'_, R>) -> Response {
    // Whoever asks may know more than this instance: storage does, when it is ready.
    context.instance.circuits.forget();
    context.instance.leaders.forget();
    let replayed = match wal::replay(context, limits::REPLAY_ON_DEMAND.into()).await {
        Ok(Some(replayed)) => replayed,
        Ok(None) => return no_wal().into(),
        Err(error) => return unavailable(&error).into(),
    };
    let left = match wal::report(context).await {
        Ok(left) => left,
        Err(error) => return unavailable(&error).into(),
    };
    let is_left = left.as_ref().is_some_and(|left| !left.is_empty());
    let left = left.as_ref().map(|left: &WalReport| left.to_json(context.config)).unwrap_or_default();
    let told = serde_json::json!({
        "replayed": {
            "entries": replayed.entries,
            "bytes": replayed.bytes,
            "records": replayed.records,
            "set_aside": replayed.set_aside,
            "dropped": replayed.dropped,
            "error": replayed.error,
        },
        "left": left,
    });
    let afterwards = if is_left { Afterwards::ReplayAll } else { Afterwards::Nothing };
    Response { answer: Answer::new(200, wire::JSON, told.to_string()), afterwards }
}

fn to_json(object: serde_json::Map<String, serde_json::Value>) -> String {
    serde_json::Value::Object(object).to_string()
}

fn no_wal() -> Answer {
    Answer::new(200, wire::JSON, serde_json::json!({ "wal": "off" }).to_string())
}

fn unavailable(error: &KeyValueError) -> Answer {
    Answer::problem(&Problem::new(503, error.to_string()))
        .with("retry-after", limits::RETRY_AFTER_S.to_string())
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
