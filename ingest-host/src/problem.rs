//! The answers that the host gives itself, as problem JSON (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::WasiBody;

/// Why the host answers instead of the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request names no host, or a malformed one.
    BadHost,
    /// The body ended early.
    BodyIncomplete,
    /// The body took too long to arrive.
    BodyTooSlow,
    /// The trigger's route does not cover the path.
    NoRoute,
    /// The body is larger than this host accepts.
    BodyTooLarge,
    /// The component trapped or failed.
    ComponentFailed,
    /// No instance is free, and too many requests wait for one.
    Overloaded,
    /// The component did not answer in time.
    TimedOut,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadHost | Self::BodyIncomplete => StatusCode::BAD_REQUEST,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ComponentFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::BadHost => "The request must name a valid host.",
            Self::BodyIncomplete => "The request's body ended before it was complete.",
            Self::BodyTooSlow => "The request's body did not arrive in time.",
            Self::NoRoute => "Nothing is served under this path.",
            Self::BodyTooLarge => "The request's body is larger than this host accepts.",
            Self::ComponentFailed => "The component failed while it had this request.",
            Self::Overloaded => "Too many requests are waiting.",
            Self::TimedOut => "The component did not answer in time.",
        }
    }

    pub(crate) fn into_response(self) -> Response<WasiBody> {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        // Both texts are constants without a character that JSON would escape.
        let body = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{},"detail":"{}"}}"#,
            status.as_u16(),
            self.detail(),
        );
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self == Self::Overloaded {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn every_refusal_is_valid_problem_json() {
        for refusal in [
            Refusal::BadHost,
            Refusal::BodyIncomplete,
            Refusal::BodyTooSlow,
            Refusal::NoRoute,
            Refusal::BodyTooLarge,
            Refusal::ComponentFailed,
            Refusal::Overloaded,
            Refusal::TimedOut,
        ] {
            let response = refusal.into_response();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["status"], status.as_u16());
            assert_eq!(json["detail"], refusal.detail());
        }
    }
}
