//! What every route answers, whatever it does.

use expect_test::expect;

use super::*;
use crate::fake::{Fake, Try, header, problem, text};
use crate::message::Method;

#[test]
fn health_names_the_node_and_asks_nobody() {
    let fake = Fake::storing();
    let answer = Try::get("/healthz").answer(&fake);
    assert_eq!(answer.status, 200);
    expect![[r#"{"node_id":"ingest-1","status":"ok","version":"0.1.0"}"#]].assert_eq(&text(&answer));
    assert!(fake.calls.borrow().is_empty());
}

#[test]
fn unknown_paths_and_methods_are_told() {
    let fake = Fake::storing();
    assert_eq!(problem(&Try::get("/v1/nothing").answer(&fake)).status, 404);
    let answer = Try::new(Method::Other("DELETE".to_owned()), "/v1/logs").answer(&fake);
    assert_eq!((problem(&answer).status, header(&answer, "allow")), (405, Some("GET, HEAD, POST")));
    assert!(fake.calls.borrow().is_empty());
}

#[test]
fn a_bad_configuration_is_named_by_its_variable() {
    let answer = misconfigured(&ConfigError::new("storage_nodes", "is nonsense"));
    let problem = problem(&answer);
    assert_eq!((problem.status, problem.field.as_deref()), (500, Some("storage_nodes")));
    assert!(problem.detail.contains("the variable `storage_nodes` is nonsense"), "{}", problem.detail);
}
