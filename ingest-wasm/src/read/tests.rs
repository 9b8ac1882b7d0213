//! Reads on scripted storage.

use model::wire;

use crate::config::tests::config;
use crate::fake::{Fake, Reaction, Try, header, problem, text};
use crate::storage::SendError;

fn line(timestamp: u64, message: &str) -> String {
    format!(
        r#"{{"timestamp":{timestamp},"service":"s","message":"{message}","received_at":1,"ingested_node_id":"n","client_ip":"i"}}"#
    )
}

fn ndjson(lines: &[String]) -> Reaction {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Reaction::reply(200, body).with("content-type", wire::NDJSON)
}

/// Each node answers with its own.
fn nodes<'s>(first: Reaction, second: Reaction) -> Fake<'s> {
    Fake::new(move |node, _| if node.authority == "node-1:8081" { first.clone() } else { second.clone() })
}

fn urls(fake: &Fake<'_>) -> Vec<String> {
    fake.calls.borrow().iter().map(|(node, call)| format!("{node}{}", call.path_and_query)).collect()
}

mod of_a_service {
    use super::*;

    #[test]
    fn the_node_of_its_partition_is_asked_and_the_oldest_comes_first() {
        let fake = Fake::new(|_, _| ndjson(&[line(9, "newest"), line(7, "older"), line(8, "oldest")]));
        let answer = Try::get("/v1/query?service=auth_service&limit=3").answer(&fake);
        assert_eq!((answer.status, header(&answer, "content-type")), (200, Some("application/json")));
        assert_eq!(
            text(&answer),
            format!("[{},{},{}]", line(8, "oldest"), line(7, "older"), line(9, "newest"))
        );
        let partition = model::route::partition_of(
            &model::Tenant::default(),
            b"auth_service",
            model::PartitionCount::new(4).unwrap(),
        );
        let node = if partition.get() < 2 { "node-1" } else { "node-2" };
        assert_eq!(
            urls(&fake),
            [format!(
                "http://{node}:8081/v1/search?service=auth_service&limit=3&order=arrival&partition={partition}"
            )]
        );
        assert_eq!(fake.header("accept"), [wire::NDJSON]);
        assert_eq!(header(&answer, "partial"), None);
    }

    #[test]
    fn nothing_stored_is_an_empty_array() {
        let fake = Fake::new(|_, _| ndjson(&[]));
        let answer = Try::get("/v1/query?service=a&limit=0").answer(&fake);
        assert_eq!((answer.status, text(&answer).as_str()), (200, "[]"));
        let lines = Try::get("/v1/query?service=a&limit=0").with("accept", wire::NDJSON).answer(&fake);
        assert_eq!(text(&lines), "");
    }

    #[test]
    fn service_and_limit_are_needed_once() {
        let fake = Fake::new(|_, _| ndjson(&[]));
        for (query, field) in [
            ("", "service"),
            ("?limit=1", "service"),
            ("?service=&limit=1", "service"),
            ("?service=a&service=b&limit=1", "service"),
            ("?service=a", "limit"),
            ("?service=a&limit=", "limit"),
            ("?service=a&limit=-1", "limit"),
            ("?service=a&limit=1.5", "limit"),
            ("?service=a&limit=x", "limit"),
            ("?service=a&limit=1&limit=2", "limit"),
            ("?service=a&limit=1&partition=0", "partition"),
        ] {
            let answer = Try::get(&format!("/v1/query{query}")).answer(&fake);
            let problem = problem(&answer);
            assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{query}");
        }
        assert!(fake.calls.borrow().is_empty());
    }

    #[test]
    fn what_else_is_asked_is_for_storage_to_judge() {
        let fake = Fake::new(|_, _| Reaction::problem(400, "from is not a time"));
        let answer = Try::get("/v1/query?service=a%20b&limit=20&from=x").answer(&fake);
        assert_eq!((answer.status, problem(&answer).detail.as_str()), (400, "from is not a time"));
        assert!(urls(&fake)[0].contains("/v1/search?service=a%20b&limit=20&from=x&order=arrival&partition="));
    }

    #[test]
    fn a_limit_above_storages_is_answered_as_far_as_it_goes_and_says_so() {
        let many: Vec<String> = (0..10_000).map(|number| line(number, "m")).collect();
        let fake = Fake::new(move |_, _| ndjson(&many));
        let answer = Try::get("/v1/query?service=a&limit=20000").answer(&fake);
        assert_eq!(answer.status, 200);
        assert!(urls(&fake)[0].contains("/v1/search?service=a&limit=10000&order=arrival&partition="));
        assert!(header(&answer, "partial").unwrap().starts_with("limit: "));

        let fake = Fake::new(|_, _| ndjson(&[line(1, "m")]));
        let answer = Try::get("/v1/query?limit=20000&service=a").answer(&fake);
        assert_eq!((answer.status, header(&answer, "partial")), (200, None));
    }

    #[test]
    fn a_node_is_asked_for_its_own_records_only() {
        let fake = Fake::new(|_, _| ndjson(&[]));
        Try::get("/v1/query?service=a&limit=1").answer(&fake);
        assert_eq!(fake.header(wire::SCOPE), [wire::SCOPE_NODE]);
    }

    #[test]
    fn where_the_partition_has_moved_its_leader_is_asked() {
        let fake = Fake::new(|node, _| match node.authority.as_str() {
            "node-4:8081" => ndjson(&[line(1, "m")]),
            _ => Reaction::problem(404, "it is not held by this node"),
        });
        let leaders = [0, 1, 2, 3].map(|partition| (partition, Some("http://node-4:8081")));
        *fake.cluster.borrow_mut() = Box::new(move |node| Reaction::cluster(node, &leaders, 2));
        for _ in 0..2 {
            assert_eq!(Try::get("/v1/query?service=a&limit=1").answer(&fake).status, 200);
        }
        let asked: Vec<String> = fake.calls.borrow().iter().map(|(node, _)| node.clone()).collect();
        assert_eq!(asked[1..], ["http://node-4:8081", "http://node-4:8081"]);
    }

    #[test]
    fn a_node_that_does_not_answer_is_a_503_that_names_it() {
        for reaction in [
            Reaction::refused_connection(),
            Reaction::Error(SendError::TimedOut),
            Reaction::problem(429, "busy"),
            Reaction::problem(404, "partition 1 is not held"),
            Reaction::Breaks,
        ] {
            let fake = Fake::new(|_, _| reaction.clone());
            let answer = Try::get("/v1/query?service=a&limit=1").answer(&fake);
            assert_eq!((answer.status, header(&answer, "retry-after")), (503, Some("1")), "{reaction:?}");
            assert!(problem(&answer).detail.contains("http://node-"), "{}", problem(&answer).detail);
        }
    }

    #[test]
    fn a_broken_connection_is_tried_once_more() {
        let mut reactions = vec![ndjson(&[line(1, "m")]), Reaction::refused_connection()];
        let fake = Fake::new(|_, _| reactions.pop().unwrap());
        assert_eq!(Try::get("/v1/query?service=a&limit=1").answer(&fake).status, 200);
    }

    #[test]
    fn what_storage_lacks_is_passed_on() {
        let fake = Fake::new(|_, _| {
            ndjson(&[line(1, "m")]).with("partial", "time: older records were not searched")
        });
        let answer = Try::get("/v1/query?service=a&limit=1").answer(&fake);
        let partial = header(&answer, "partial").unwrap();
        assert!(
            partial.starts_with("http://node-") && partial.ends_with("time: older records were not searched")
        );
    }
}

mod of_all_nodes {
    use super::*;

    #[test]
    fn the_newest_of_all_come_first() {
        let fake = nodes(ndjson(&[line(9, "a"), line(5, "c")]), ndjson(&[line(7, "b"), line(3, "d")]));
        let answer = Try::get("/v1/logs?level=INFO&limit=3").answer(&fake);
        assert_eq!((answer.status, header(&answer, "content-type")), (200, Some(wire::NDJSON)));
        assert_eq!(text(&answer), format!("{}\n{}\n{}\n", line(9, "a"), line(7, "b"), line(5, "c")));
        assert_eq!(
            urls(&fake),
            [
                "http://node-1:8081/v1/search?level=INFO&limit=3",
                "http://node-2:8081/v1/search?level=INFO&limit=3"
            ]
        );
        assert_eq!((header(&answer, "partial"), fake.in_flight_max.get()), (None, 1));
        // The first node does not know the other: that one is asked too, for its own.
        assert_eq!(fake.header(wire::SCOPE), [wire::SCOPE_NODE]);
        let array = Try::get("/v1/logs?limit=1").with("accept", "application/json").answer(&fake);
        assert_eq!(text(&array), format!("[{}]", line(9, "a")));
    }

    #[test]
    fn a_node_that_knows_the_others_answers_for_all_of_them() {
        let all = ndjson(&[line(9, "a"), line(5, "c")]).with(wire::SCOPE, wire::SCOPE_CLUSTER);
        let fake = nodes(all.clone(), ndjson(&[line(7, "never asked")]));
        let answer = Try::get("/v1/logs?limit=3").answer(&fake);
        assert_eq!(text(&answer), format!("{}\n{}\n", line(9, "a"), line(5, "c")));
        assert_eq!(urls(&fake), ["http://node-1:8081/v1/search?limit=3"]);

        let partial = all.with("partial", "node http://node-1:8081 did not answer: it cannot be reached");
        let fake = nodes(Reaction::refused_connection(), partial);
        let answer = Try::get("/v1/logs?limit=3").answer(&fake);
        assert_eq!(text(&answer), format!("{}\n{}\n", line(9, "a"), line(5, "c")));
        // In the words of the node that asked it, and once.
        let told = header(&answer, "partial").unwrap();
        assert_eq!(told.matches("http://node-1:8081").count(), 1, "{told}");
    }

    #[test]
    fn several_nodes_that_do_not_know_each_other_are_asked_at_once() {
        let four = config(["ingest-1", "http://a:1,http://b:1,http://c:1,http://d:1", "4", ""]).unwrap();
        let mut time = 0;
        let fake = Fake::new(move |_, _| {
            time += 1;
            ndjson(&[line(time, "m")])
        });
        let answer = Try::get("/v1/logs").answer_with(&fake, &four, 1);
        assert_eq!((text(&answer).lines().count(), fake.in_flight_max.get()), (4, 3));
    }

    #[test]
    fn without_a_limit_it_is_storages_own() {
        let many: Vec<_> = (0..100).map(|n| line(1_000 - n, "m")).collect();
        let fake = nodes(ndjson(&many), ndjson(&many));
        let answer = Try::get("/v1/logs").answer(&fake);
        assert_eq!(text(&answer).lines().count(), 100);
        assert_eq!(urls(&fake)[0], "http://node-1:8081/v1/search");
    }

    #[test]
    fn a_node_that_does_not_answer_is_named() {
        for (reaction, reason) in [
            (Reaction::refused_connection(), "connection refused"),
            (Reaction::Error(SendError::TimedOut), "no answer in time"),
            (Reaction::Breaks, "broke off"),
            (Reaction::problem(429, "too many queries"), "429: too many queries"),
            (Reaction::reply(500, "<html>"), "it answers 500"),
            (Reaction::reply(200, "garbage\n"), "not records"),
        ] {
            let fake = nodes(reaction.clone(), ndjson(&[line(7, "b")]));
            let answer = Try::get("/v1/logs").answer(&fake);
            assert_eq!((answer.status, text(&answer)), (200, format!("{}\n", line(7, "b"))), "{reaction:?}");
            let partial = header(&answer, "partial").unwrap();
            assert!(partial.contains("http://node-1:8081: ") && partial.contains(reason), "{partial}");
        }
    }

    #[test]
    fn when_none_answers_it_is_a_503() {
        let fake = Fake::new(|_, _| Reaction::refused_connection());
        let answer = Try::get("/v1/logs").answer(&fake);
        assert_eq!((answer.status, header(&answer, "retry-after")), (503, Some("1")));
        let detail = problem(&answer).detail;
        assert!(
            detail.contains("http://node-1:8081: ") && detail.contains("http://node-2:8081: "),
            "{detail}"
        );
    }

    #[test]
    fn what_storage_refuses_it_refuses_in_its_own_words() {
        let fake = nodes(Reaction::problem(400, "no such parameter"), Reaction::refused_connection());
        let answer = Try::get("/v1/logs?servce=a").answer(&fake);
        assert_eq!((answer.status, problem(&answer).detail.as_str()), (400, "no such parameter"));
    }

    #[test]
    fn one_partition_is_asked_of_its_node_alone() {
        let fake = nodes(ndjson(&[]), ndjson(&[line(1, "m")]));
        let answer = Try::get("/v1/logs?partition=3").answer(&fake);
        assert_eq!(text(&answer), format!("{}\n", line(1, "m")));
        assert_eq!(urls(&fake), ["http://node-2:8081/v1/search?partition=3"]);
        assert_eq!(problem(&Try::get("/v1/logs?partition=4").answer(&fake)).status, 404);
        assert_eq!(problem(&Try::get("/v1/logs?partition=x").answer(&fake)).status, 400);
        assert_eq!(problem(&Try::get("/v1/logs?partition=1&partition=2").answer(&fake)).status, 400);
    }

    #[test]
    fn what_each_node_lacks_is_passed_on() {
        let fake =
            nodes(ndjson(&[line(1, "m")]).with("partial", "damage: x"), Reaction::refused_connection());
        let answer = Try::get("/v1/logs").answer(&fake);
        let partial = header(&answer, "partial").unwrap();
        assert_eq!(partial, "http://node-2:8081: connection refused, http://node-1:8081: damage: x");
    }

    #[test]
    fn an_answer_that_is_too_large_is_cut_at_a_record_and_told() {
        let large: Vec<_> = (0..20).map(|n| line(100 - n, &"x".repeat(1 << 20))).collect();
        let fake = nodes(ndjson(&large), ndjson(&[line(50, "m")]));
        let answer = Try::get("/v1/logs").answer(&fake);
        let lines: Vec<_> = text(&answer).lines().map(str::to_owned).collect();
        assert_eq!((lines.len(), lines == large[..15]), (15, true));
        assert!(header(&answer, "partial").unwrap().starts_with("bytes: "));
    }
}
