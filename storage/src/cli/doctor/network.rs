//! The port, and the clocks of this machine and of its peers.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::header::DATE;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::timeout;
use url::Url;

use super::Finding;

/// How long a peer may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// Clocks that differ by less agree: a `Date` has whole seconds, and the answer takes its time.
const CLOCK_DIFFERENCE_S_MAX: i64 = 2;
/// No clock that is right is earlier: 2026-01-01.
const EARLIEST_UNIX_S: i64 = 1_767_225_600;

/// What another process answered to a health check.
struct Seen {
    status: StatusCode,
    /// Its clock minus this one's, in seconds, if it told.
    clock_difference_s: Option<i64>,
}

/// Looks at the port and the clocks.
pub(super) fn look(listen: SocketAddr, peers: &[&Url]) -> Vec<Finding> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![Finding::failure("network", error.to_string(), "see the limits below")],
    };
    runtime.block_on(async {
        let mut findings = vec![port(listen).await, own_clock()];
        findings.extend(join_all(peers.iter().map(|peer| peer_clock(peer))).await);
        findings
    })
}

async fn port(listen: SocketAddr) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::ok("port", format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match ask(&format!("http://{listen}")).await {
            Ok(seen) if seen.status == StatusCode::OK => Finding::warning(
                "port",
                format!("a node answers on {listen} already"),
                "it is this one, or stop it",
            ),
            _ => Finding::failure(
                "port",
                format!("{listen} is taken by another program"),
                format!(
                    "`ss -ltnp 'sport = :{}'` tells which; stop it, or choose another --listen",
                    listen.port()
                ),
            ),
        },
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding::failure(
            "port",
            format!("{listen} may not be listened on"),
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose another --listen",
        ),
        Err(error) => Finding::failure(
            "port",
            format!("{listen}: {error}"),
            "--listen has to be an address of this machine, or 0.0.0.0 for all of them",
        ),
    }
}

fn own_clock() -> Finding {
    let now = Timestamp::now();
    if now.as_second() < EARLIEST_UNIX_S {
        let advice = "set the clock and run a time service (chrony, systemd-timesyncd): retention and times depend on it";
        return Finding::failure("clock", format!("this machine thinks that it is {now}"), advice);
    }
    Finding::ok("clock", format!("{now}"))
}

async fn peer_clock(peer: &Url) -> Finding {
    let base = peer.as_str().trim_end_matches('/');
    match ask(base).await {
        Err(reason) => Finding::warning(
            "peer",
            format!("{base}: {reason}"),
            "start it, or look at its --listen, the name and the firewall between",
        ),
        Ok(Seen { status, clock_difference_s: None }) => {
            Finding::warning("peer", format!("{base} answers {status} without a Date"), "is it edgelog?")
        }
        Ok(Seen { clock_difference_s: Some(difference), .. })
            if difference.abs() > CLOCK_DIFFERENCE_S_MAX =>
        {
            Finding::failure(
                "peer",
                format!("{base}: its clock is {difference} s off from this one"),
                "run a time service on both (`chronyc tracking`, `timedatectl`): records' times would not agree",
            )
        }
        Ok(Seen { status, .. }) if status != StatusCode::OK => {
            Finding::warning("peer", format!("{base} answers {status}; its clock agrees"), "look at its log")
        }
        Ok(_) => Finding::ok("peer", format!("{base} answers, and its clock agrees")),
    }
}

/// Asks a process for its health.
async fn ask(base: &str) -> Result<Seen, String> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let request =
        Request::get(format!("{base}/healthz")).body(Empty::new()).map_err(|error| error.to_string())?;
    let answer = timeout(ANSWER_TIME_MAX, client.request(request))
        .await
        .map_err(|_elapsed| "it does not answer in time".to_owned())?
        .map_err(|error| std::error::Error::source(&error).unwrap_or(&error).to_string())?;
    let now = Timestamp::now();
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| rfc2822::parse(date).ok());
    let clock_difference_s = date.map(|date| date.timestamp().as_second() - now.as_second());
    Ok(Seen { status: answer.status(), clock_difference_s })
}
