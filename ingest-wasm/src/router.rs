//! Which request goes where.

use crate::message::{Method, RequestHead};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Records are taken.
    Ingest,
    /// The newest records of all nodes.
    Logs,
    /// The last records of a service.
    Query,
    /// What the edge WAL holds.
    Wal,
    /// The edge WAL's entries are taken to storage now.
    Replay,
    /// Whether the component runs.
    Health,
    /// The path does not take this method, but those.
    NotAllowed(&'static str),
    /// There is nothing at this path.
    Unknown,
}

/// Where this request goes.
pub fn route(head: &RequestHead) -> Route {
    let get_only = |route| match head.method {
        Method::Get | Method::Head => route,
        Method::Post | Method::Other(_) => Route::NotAllowed("GET, HEAD"),
    };
    match (head.path.as_str(), &head.method) {
        ("/v1/logs", Method::Post) => Route::Ingest,
        ("/v1/logs", Method::Get | Method::Head) => Route::Logs,
        ("/v1/logs", Method::Other(_)) => Route::NotAllowed("GET, HEAD, POST"),
        ("/v1/query", _) => get_only(Route::Query),
        ("/v1/wal", _) => get_only(Route::Wal),
        ("/v1/wal/replay", Method::Post) => Route::Replay,
        ("/v1/wal/replay", _) => Route::NotAllowed("POST"),
        ("/healthz", _) => get_only(Route::Health),
        _ => Route::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_where_the_contract_says() {
        let route = |method: &str, path: &str| {
            let method = match method {
                "GET" => Method::Get,
                "HEAD" => Method::Head,
                "POST" => Method::Post,
                other => Method::Other(other.to_owned()),
            };
            super::route(&RequestHead {
                method,
                path: path.to_owned(),
                query: String::new(),
                headers: Default::default(),
            })
        };
        assert_eq!(route("POST", "/v1/logs"), Route::Ingest);
        assert_eq!(route("GET", "/v1/logs"), Route::Logs);
        assert_eq!(route("HEAD", "/v1/logs"), Route::Logs);
        assert_eq!(route("PUT", "/v1/logs"), Route::NotAllowed("GET, HEAD, POST"));
        assert_eq!(route("GET", "/v1/query"), Route::Query);
        assert_eq!(route("POST", "/v1/query"), Route::NotAllowed("GET, HEAD"));
        assert_eq!(route("HEAD", "/healthz"), Route::Health);
        assert_eq!(route("GET", "/v1/wal"), Route::Wal);
        assert_eq!(route("POST", "/v1/wal"), Route::NotAllowed("GET, HEAD"));
        assert_eq!(route("POST", "/v1/wal/replay"), Route::Replay);
        assert_eq!(route("GET", "/v1/wal/replay"), Route::NotAllowed("POST"));
        assert_eq!(route("OPTIONS", "/healthz"), Route::NotAllowed("GET, HEAD"));
        for path in ["/", "/v1/logs/", "/v1/LOGS", "/v1", ""] {
            assert_eq!(route("GET", path), Route::Unknown, "{path}");
        }
    }
}
