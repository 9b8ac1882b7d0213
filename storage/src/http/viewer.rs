//! `GET /` and `GET /viewer/...`: the log viewer, as embedded files.
//!
//! Invariants: only files that were embedded are served, whatever the path says; the page may load and run nothing
//! but them, for its Content-Security-Policy allows no other source and no inline script.

use axum::extract::{Path, Request};
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use rust_embed::{Embed, EmbeddedFile};

use super::error::ApiError;

/// The viewer's files.
#[derive(Embed)]
#[folder = "../viewer/"]
#[exclude = "tests/*"]
#[exclude = "*.md"]
#[exclude = "package.json"]
struct Files;

/// What the page may load: these files and this node's answers.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page itself.
pub(super) async fn page(request: Request) -> Result<Response, ApiError> {
    file("index.html", "/", request.headers())
}

/// One of its files.
pub(super) async fn asset(Path(path): Path<String>, request: Request) -> Result<Response, ApiError> {
    file(&path, request.uri().path(), request.headers())
}

fn file(name: &str, path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let found = Files::get(name).zip(media_type(name));
    let Some((file, media_type)) = found else {
        return Err(ApiError::UnknownPath { path: path.to_owned() });
    };
    let tag = entity_tag(&file);
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known == tag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => file.data.into_owned().into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // A new version of the node has to be seen at once; unchanged files cost a 304.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, tag);
    Ok(response)
}

/// The media type by a file's ending; `None` for what a browser has no use for.
fn media_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

/// The first 64 bits of the file's SHA-256, quoted.
fn entity_tag(file: &EmbeddedFile) -> HeaderValue {
    let hash: String = file.metadata.sha256_hash().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"viewer\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(name: &str) -> Result<Response, ApiError> {
        file(name, name, &HeaderMap::new())
    }

    #[test]
    fn the_page_comes_with_its_policy_and_a_type() {
        let page = answered("index.html").unwrap();
        assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(page.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answered("app.js").unwrap().headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
    }

    #[test]
    fn a_file_that_the_browser_has_is_not_sent_again() {
        let tag = answered("app.js").unwrap().headers()[ETAG].clone();
        let known = HeaderMap::from_iter([(IF_NONE_MATCH, tag)]);
        assert_eq!(file("app.js", "/viewer/app.js", &known).unwrap().status(), StatusCode::NOT_MODIFIED);
        let other = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("\"other\""))]);
        assert_eq!(file("app.js", "/viewer/app.js", &other).unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn nothing_but_the_embedded_files_is_served() {
        for name in [
            "",
            "..",
            "../Cargo.toml",
            "/etc/passwd",
            "README.md",
            "package.json",
            "tests/query.test.js",
            "x.js",
        ] {
            assert!(answered(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn every_file_that_the_page_names_is_embedded() {
        let page = Files::get("index.html").unwrap();
        let text = String::from_utf8(page.data.into_owned()).unwrap();
        let named: Vec<&str> = text.split('"').filter_map(|part| part.strip_prefix("/viewer/")).collect();
        assert!(named.len() > 1, "{text}");
        for name in named {
            assert!(Files::get(name).is_some(), "{name}");
        }
    }
}
