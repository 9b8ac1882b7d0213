//! The component's export: the runtime's requests in, answers out. Everything here is translation.
//!
//! What lives as long as the instance is the configuration, the count of the bytes that its requests hold, the open
//! store, and what the instance has found out about nodes; instances serve several requests at once and are reused.

mod incoming;
mod outgoing;
mod store;
mod transport;

use std::sync::OnceLock;

use model::trace::{TRACEPARENT, TraceParent};
use spin_sdk::variables;
use wasip3::clocks::system_clock;
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::random::random::{get_random_bytes, get_random_u64};

use crate::app;
use crate::budget::Budget;
use crate::config::{Config, ConfigError, VARIABLES};
use crate::context::Context;
use crate::instance::InstanceState;
use crate::limits;
use crate::message::{Afterwards, Answer, Method, RequestHead, Response as Responded};
use crate::sparing::Sparing;
use incoming::Incoming;
use transport::Transport;

static CONFIG: OnceLock<Config> = OnceLock::new();
static BUDGET: Budget = Budget::new(limits::BODIES_BYTES_MAX);
static INSTANCE: InstanceState = InstanceState::new();
static RUNTIME: Sparing<'static, Transport> = Sparing::new(&Transport, &INSTANCE.time);

struct Component;

wasip3::http::service::export!(Component);

impl Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let (head, mut body) = Incoming::of_request(request);
        let Responded { answer, .. } = match config().await {
            Ok(config) => {
                let context = context(config, &head);
                let response = RUNTIME.run(app::respond(&context, &head, &mut body)).await;
                if response.afterwards != Afterwards::Nothing {
                    // It begins when this task waits or ends, and goes on when the answer has left.
                    wasip3::spawn(async move {
                        RUNTIME.run(app::follow_up(&context, response.afterwards)).await;
                    });
                }
                response
            }
            Err(error) => app::misconfigured(&error).into(),
        };
        if !answer.is_success() && head.headers.first("expect").is_none() {
            body.discard().await;
        }
        outgoing::respond(answer, head.method == Method::Head, &BUDGET)
    }
}

fn context(config: &'static Config, head: &RequestHead) -> Context<'static, Sparing<'static, Transport>> {
    let random = random();
    let trace = head.headers.first(TRACEPARENT).and_then(TraceParent::parse);
    let trace = trace.unwrap_or_else(|| TraceParent::unsampled(random));
    Context {
        config,
        storage: &RUNTIME,
        budget: &BUDGET,
        instance: &INSTANCE,
        now_ms: now_ms(),
        random,
        trace,
    }
}

/// 128 random bits, by one call where the runtime keeps to what it is asked for.
fn random() -> u128 {
    match get_random_bytes(16).try_into() {
        Ok(bytes) => u128::from_le_bytes(bytes),
        // It may give fewer at a time.
        Err(_fewer) => (u128::from(get_random_u64()) << 64) | u128::from(get_random_u64()),
    }
}

/// The configuration. Only a usable one is kept: a variable's provider may come back.
async fn config() -> Result<&'static Config, ConfigError> {
    if let Some(config) = CONFIG.get() {
        return Ok(config);
    }
    let mut values: [String; VARIABLES.len()] = Default::default();
    for (value, name) in values.iter_mut().zip(VARIABLES) {
        *value = variables::get(name)
            .await
            .map_err(|error| ConfigError::new(name, format!("cannot be had: {error}")))?;
    }
    let config = Config::new(&values)?;
    Ok(CONFIG.get_or_init(|| config))
}

/// Unix milliseconds; zero for a clock that stands before 1970.
fn now_ms() -> u64 {
    let now = system_clock::now();
    let seconds = u64::try_from(now.seconds).unwrap_or_default();
    seconds.saturating_mul(1_000).saturating_add(u64::from(now.nanoseconds / 1_000_000))
}

/// The answer for a request that found no room for its own answer.
fn busy() -> Answer {
    let problem = model::Problem::new(503, "this instance holds as many bytes of answers as it may");
    Answer::problem(&problem).with("retry-after", limits::RETRY_AFTER_S.to_string())
}
