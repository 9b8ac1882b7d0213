//! What is set wrongly is named, and nobody is called who was not configured.

use std::process::Stdio;
use std::time::Duration;

use tests::ClusterSpec;
use tests::certificates::Authority;
use tests::programs::programs;
use tests::records::record;
use tokio::process::Command;
use tokio::time::timeout;

#[tokio::test]
async fn a_variable_that_is_wrong_is_named_in_every_answer() {
    for (name, value) in [
        ("node_id", ""),
        ("partitions", "0"),
        ("partitions", "many"),
        ("storage_nodes", "localhost:8081"),
        ("storage_nodes", ""),
        ("trusted_proxies", "10.0.0.0/99"),
    ] {
        let mut cluster = ClusterSpec::default().nodes(1).variable(name, value).start_serving().await;
        for path in ["/v1/logs", "/v1/query?service=a&limit=1"] {
            let problem = cluster.client.get(&cluster.url(path)).await.unwrap().expect(500).problem();
            assert!(problem.detail.contains(&format!("`{name}`")), "{value:?}: {}", problem.detail);
        }
        let problem = cluster.send(&[record("a", "m")], "k").await.expect(500).problem();
        assert!(problem.detail.contains(&format!("`{name}`")), "{value:?}: {}", problem.detail);
        assert!(cluster.ingests[0].stop().await.success());
        assert_eq!(cluster.stored_count().await, 0);
    }
}

#[tokio::test]
async fn a_node_that_is_not_among_the_allowed_hosts_is_not_called() {
    // With the edge WAL the record would be kept until the variable is mended, and the answer be 202.
    let spec = ClusterSpec::default().variable("storage_hosts", "http://127.0.0.1:1").variable("wal", "off");
    let cluster = spec.start().await;
    let answer = cluster.send(&[record("event_creator", "m")], "k").await;
    assert!(answer.status >= 500, "{answer:?}");
    let problem = answer.problem();
    assert!(problem.detail.contains("storage_hosts"), "{}", problem.detail);
    assert_eq!(cluster.stored_count().await, 0);
}

/// How a run of the storage program ends that should not go on: its code, and what it says.
async fn ended(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(&programs().storage);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(60), command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} serves")).unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn certificates_that_are_of_no_use_are_named_before_a_node_serves_whether_it_has_replicas_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node").display().to_string();
    let flags = Authority::new(dir.path()).flags("node", "127.0.0.1");
    let whole: Vec<&str> = flags.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
    let (code, said) = ended(&[&["config", "check"], &whole[..]].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    let key = whole[3];
    let not_it = [&whole[..4], &["--cluster-ca", key]].concat();
    for (certificates, reason) in [
        (&whole[2..], "--cluster-cert is missing".to_owned()),
        (&not_it[..], format!("--cluster-ca {key}: there is no certificate in it")),
    ] {
        for replicas in ["1", "3"] {
            let given = [&["--replicas", replicas], certificates].concat();
            let serves = ["--listen", "127.0.0.1:0", "--data", &data];
            for task in [&["config", "check"], &serves[..]] {
                let (code, said) = ended(&[task, &given].concat()).await;
                assert_eq!(code, Some(2), "{task:?} {given:?}: {said}");
                assert!(said.contains(&reason), "{task:?} {given:?}: {said}");
            }
        }
    }
}
