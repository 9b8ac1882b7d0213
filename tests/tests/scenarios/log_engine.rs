//! The log of one storage node, as a process on a real disk: full, small, busy, and with more values than memory.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use model::wire::{self, AppendAnswer};
use model::{BatchId, EnrichedRecord, Partition, Tenant};
use rand::RngExt;
use tests::client::answer;
use tests::isolated::{fill_up, on_small_disk};
use tests::load::{Load, LoadSpec};
use tests::oracle::Oracle;
use tests::programs::programs;
use tests::{Answer, Client, Cluster, ClusterSpec, Node, eventually, files, random};

/// What a node may take of the machine's memory, whatever is stored.
const MEMORY_BYTES_MAX: u64 = 100_000_000;
/// Records of a batch that is made here.
const BATCH_RECORDS: usize = 200;

/// Batch `number`: some 250 kB that do not compress to nothing.
fn batch(number: usize) -> String {
    let line = |place: usize| {
        let mut mixed = (number * BATCH_RECORDS + place) as u64;
        let filler: String = (0..64)
            .map(|_| {
                mixed = mixed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                format!("{mixed:016x}")
            })
            .collect();
        format!(
            "{{\"timestamp\":1,\"service\":\"s\",\"message\":\"{number} {filler}\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
        )
    };
    (0..BATCH_RECORDS).map(line).collect()
}

/// Sends a batch of NDJSON under the id of its key.
async fn append(client: &Client, node: &Node, key: &str, body: String) -> Answer {
    let id = BatchId::derive(&Tenant::default(), key, Partition::new(0)).to_string();
    let request = client.post(&node.url("/v1/storage?partition=0")).header("content-type", wire::NDJSON);
    answer(request.header(wire::BATCH_ID, id).body(body)).await.unwrap()
}

async fn append_batch(client: &Client, node: &Node, number: usize) -> Answer {
    append(client, node, &number.to_string(), batch(number)).await
}

/// Sends batches from `number` on until one is not taken, which is `number` then; the answer to that.
async fn fill(client: &Client, node: &Node, number: &mut usize, acked: &mut Vec<usize>) -> Answer {
    loop {
        let answer = append_batch(client, node, *number).await;
        if answer.status != 200 {
            return answer;
        }
        acked.push(*number);
        *number += 1;
    }
}

/// The numbers of the batches that the node holds, which has to have each whole, once, and in order.
async fn stored_batches(client: &Client, node: &Node) -> Vec<usize> {
    let url = node.url(&format!("/v1/read?partition=0&limit={}", u64::MAX));
    let request = client.request("GET", &url).header("accept", wire::NDJSON);
    let records: Vec<EnrichedRecord> = answer(request).await.unwrap().expect(200).ndjson();
    let number =
        |record: &EnrichedRecord| record.message.split(' ').next().unwrap().parse::<usize>().unwrap();
    let numbers: Vec<usize> = records.iter().map(number).collect();
    let runs: Vec<&[usize]> = numbers.chunk_by(|a, b| a == b).collect();
    assert!(runs.iter().all(|run| run.len() == BATCH_RECORDS), "every batch is whole");
    let numbers: Vec<usize> = runs.iter().map(|run| run[0]).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "every batch is there once, in order: {numbers:?}");
    numbers
}

#[tokio::test]
async fn a_disk_of_64_mib_fills_up_and_is_freed() {
    let Some(dir) = on_small_disk("log_engine::a_disk_of_64_mib_fills_up_and_is_freed", 64) else { return };
    let client = Client::new();
    // What an operator can remove later.
    fs::write(dir.join("ballast"), vec![1; 16 << 20]).unwrap();
    let flags =
        |more: &[&str]| ["--segment-bytes", "4MiB"].iter().chain(more).map(|f| (*f).to_owned()).collect();
    let mut node = Node::new(&dir, "node", vec![0], &Vec::from_iter::<Vec<String>>(flags(&[])));
    node.start().await;
    let reserve = node.partition_dir(0).join("reserve");
    eventually("the reserve is taken", Duration::from_secs(10), async || reserve.exists().then_some(()))
        .await;

    let mut acked = Vec::new();
    let mut number = 0;
    let full = fill(&client, &node, &mut number, &mut acked).await;
    full.clone().expect(507).problem();
    assert!(!full.header("retry-after").is_empty());
    assert!(acked.len() > 100, "{} batches went into 48 MiB", acked.len());
    assert_eq!(stored_batches(&client, &node).await, acked, "reads go on");
    // What is stored is known, and what is not is not.
    append_batch(&client, &node, acked[0]).await.expect(200);
    append_batch(&client, &node, number).await.expect(507);

    // The last byte is gone too; a node that is killed starts and reads all the same.
    fill_up(&dir.join("filler"));
    node.kill();
    node.start().await;
    // Without connections to the process that is gone.
    let client = Client::new();
    assert_eq!(stored_batches(&client, &node).await, acked);
    append_batch(&client, &node, number).await.expect(507);

    // Somebody makes room: writes resume by themselves.
    fs::remove_file(dir.join("ballast")).unwrap();
    append_batch(&client, &node, number).await.expect(200);
    acked.push(number);
    assert_eq!(stored_batches(&client, &node).await, acked);

    // Full again: with a retention the node makes room by itself, on a disk without any.
    number += 1;
    fill(&client, &node, &mut number, &mut acked).await;
    fill_up(&dir.join("filler-2"));
    node.kill();
    let mut node = Node::new(
        &dir,
        "node",
        vec![0],
        &Vec::from_iter::<Vec<String>>(flags(&["--retention-bytes", "24MiB"])),
    );
    node.start().await;
    let client = Client::new();
    let is_taken = async || (append_batch(&client, &node, number).await.status == 200).then_some(());
    eventually("the node makes room by itself", Duration::from_secs(20), is_taken).await;
    acked.push(number);
    let left = stored_batches(&client, &node).await;
    assert!(left.len() < acked.len() && acked.ends_with(&left), "the oldest went, and nothing else");
    assert!(node.stop().await.success());
    assert_sound(&dir.join("node"));
}

/// Asserts that `storage verify` finds every checksum right.
fn assert_sound(data_dir: &Path) {
    let output = Command::new(&programs().storage).arg("verify").arg(data_dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn a_hundred_thousand_services_and_a_million_labels_cost_no_file_and_little_memory() {
    const BATCHES: usize = 100;
    const BATCH_SERVICES: usize = 1000;
    let cluster = ClusterSpec::default().nodes(1).partitions(1).ingests(0).start().await;
    let node = &cluster.nodes[0];
    let files_before = fs::read_dir(node.partition_dir(0)).unwrap().count();
    for number in 0..BATCHES {
        let line = |place: usize| {
            let service = number * BATCH_SERVICES + place;
            let labels: Vec<String> =
                (0..10).map(|label| format!("\"label-{label}\":\"value-{service}-{label}\"")).collect();
            let labels = labels.join(",");
            format!(
                "{{\"timestamp\":{service},\"service\":\"service-{service}\",\"message\":\"m\",\"labels\":{{{labels}}},\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
            )
        };
        let body: String = (0..BATCH_SERVICES).map(line).collect();
        append(&cluster.client, node, &number.to_string(), body).await.expect(200);
    }
    let services = cluster.client.get(&node.url("/v1/read?partition=0&limit=1")).await.unwrap().expect(200);
    assert!(services.text().contains("service-99999"), "{}", services.text());
    let files = fs::read_dir(node.partition_dir(0)).unwrap().count();
    assert!(files <= files_before + 8, "{files} files, {files_before} before");
    let memory = node.process().memory_bytes_max();
    assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes of memory");
}

#[tokio::test]
async fn segments_that_roll_and_are_compressed_under_load_survive_kill_9() {
    let spec = ClusterSpec::default().nodes(1).partitions(2);
    // Every few batches a segment, compressed as soon as it is sealed.
    let spec = spec.node_flag("--segment-bytes", "32KiB").node_flag("--compress-age", "1ms");
    let mut cluster = spec.start().await;
    let urls = vec![cluster.url("/v1/logs")];
    let load = Load::start(&LoadSpec {
        urls,
        connections: 4,
        batch_records_max: 40,
        given_up: 0.3,
        seed: random::nonce(),
    });
    for _ in 0..random::kill_rounds() {
        load.progress(50).await;
        cluster.nodes[0].kill();
        cluster.nodes[0].start().await;
    }
    load.progress(40).await;
    let ledgers = load.finish().await;
    // What was acknowledged while the node was down may still wait at the edge.
    cluster.drain_wals().await;
    Oracle::new(cluster.partitions(), ledgers).assert_holds(&cluster.stored().await);
    let dirs = [0, 1].map(|partition| cluster.nodes[0].partition_dir(partition));
    let compressed =
        || dirs.iter().flat_map(|dir| names(dir)).filter(|name| name.ends_with(".jsonl.zst")).count();
    eventually("segments are compressed", Duration::from_secs(20), async || (compressed() > 2).then_some(()))
        .await;
    assert!(cluster.nodes[0].stop().await.success());
    assert_sound(dirs[0].parent().unwrap());
}

#[tokio::test]
async fn retention_and_compression_under_load_take_the_oldest_and_nothing_else_through_kill_9() {
    let mut random = random::seeded();
    let spec = ClusterSpec::default().nodes(1).partitions(2).variable("wal", "off");
    // Both at every turn: whatever a kill meets, it is the middle of something.
    let spec = spec.node_flag("--segment-bytes", "16KiB").node_flag("--compress-age", "1ms");
    let mut cluster = spec.node_flag("--retention-bytes", "96KiB").start().await;
    let load = Load::start(&LoadSpec {
        urls: vec![cluster.url("/v1/logs")],
        connections: 4,
        batch_records_max: 30,
        given_up: 0.3,
        seed: random.random(),
    });
    let first_offsets = async |cluster: &Cluster| {
        let described = cluster.described_by(0).await;
        described.partitions.iter().map(|state| state.first_offset.get()).collect::<Vec<_>>()
    };
    for _ in 0..random::kill_rounds() {
        let before = first_offsets(&cluster).await;
        let is_on = async || {
            let now = first_offsets(&cluster).await;
            before.iter().zip(&now).all(|(before, now)| before < now).then_some(())
        };
        eventually("retention goes on", Duration::from_secs(40), is_on).await;
        load.progress(random.random_range(1..20)).await;
        cluster.nodes[0].kill();
        cluster.nodes[0].start().await;
        let after = first_offsets(&cluster).await;
        assert!(before.iter().zip(&after).all(|(before, after)| before < after), "what is gone stays gone");
    }
    load.progress(20).await;
    let ledgers = load.finish().await;
    let stored = cluster.stored().await;
    let oracle = Oracle::new(cluster.partitions(), ledgers);
    oracle.assert_holds_the_newest(&stored);
    for (partition, records) in &stored {
        let state = &cluster.described_by(0).await.partitions[usize::from(*partition)];
        let kept = state.high_watermark.get() - state.first_offset.get();
        assert!(records.len() as u64 >= kept && kept > 100, "{partition}: {} of {kept}", records.len());
    }
    assert!(cluster.nodes[0].stop().await.success());
    assert_sound(cluster.nodes[0].partition_dir(0).parent().unwrap());
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn every_answer_names_the_fsync_policy_and_none_loses_anything_with_the_process_alone() {
    for (policy, durability) in
        [("always", "leader"), ("interval", "leader; fsync=interval"), ("never", "leader; fsync=never")]
    {
        let spec = ClusterSpec::default().nodes(1).partitions(1).ingests(0);
        let mut cluster = spec.node_flag("--fsync", policy).start().await;
        for number in 0..5 {
            let answer = append_batch(&cluster.client, &cluster.nodes[0], number).await.expect(200);
            assert_eq!(answer.header(wire::DURABILITY), durability);
            assert_eq!(answer.json::<AppendAnswer>().offset.get(), (number * BATCH_RECORDS) as u64);
        }
        cluster.nodes[0].kill();
        cluster.nodes[0].start().await;
        assert_eq!(stored_batches(&cluster.client, &cluster.nodes[0]).await, [0, 1, 2, 3, 4], "{policy}");
        assert_eq!(files::lines(&cluster.nodes[0].partition_dir(0)).len(), 5 * BATCH_RECORDS);
    }
}
