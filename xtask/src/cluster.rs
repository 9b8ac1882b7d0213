//! How the parts fit together: which node holds which partitions, and what the ingest is told of them.
//!
//! Invariant: pure; nothing here starts or asks anything. The dealing is `model::route::default_node`'s (a test holds
//! them together): the ingest computes it alone.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::ensure;

/// Most storage nodes on one machine.
pub(crate) const NODES_MAX: u16 = 16;
/// The variables of spin.toml that each open outbound connections to one host, or to a range of its ports.
const HOST_VARIABLES: [&str; 4] = ["storage_hosts", "storage_hosts_2", "storage_hosts_3", "storage_hosts_4"];

/// Deals `partitions` out to `nodes` in equal runs: 4 on 2 are 0 and 1, then 2 and 3.
///
/// # Errors
/// A node would be left without any.
pub(crate) fn deal(partitions: u16, nodes: u16) -> anyhow::Result<Vec<Vec<u16>>> {
    ensure!(nodes > 0 && partitions > 0, "there must be a node and a partition");
    let run = partitions.div_ceil(nodes);
    let nodes_used = partitions.div_ceil(run);
    ensure!(
        nodes_used == nodes,
        "{partitions} partitions are dealt to {nodes} nodes in runs of {run}, which leaves node {} without any; \
         give --partitions a multiple of {nodes}",
        nodes_used + 1
    );
    let numbers: Vec<u16> = (0..partitions).collect();
    Ok(numbers.chunks(run.into()).map(<[u16]>::to_vec).collect())
}

/// What each node is told of `partitions` of which there are so many copies: with one copy its own, with more all of
/// them, for then the nodes agree among themselves.
///
/// # Errors
/// A node would be left without any, or there are more copies than nodes.
pub(crate) fn assign(partitions: u16, nodes: u16, replicas: u16) -> anyhow::Result<Vec<Vec<u16>>> {
    if replicas == 1 {
        return deal(partitions, nodes);
    }
    ensure!(replicas <= nodes, "{replicas} copies need as many nodes; give --nodes {replicas} or more");
    Ok(vec![(0..partitions).collect(); nodes.into()])
}

/// The command line of a storage node. All nodes are its peers; itself among them does no harm.
pub(crate) fn storage_arguments(
    listen: SocketAddr,
    data: &Path,
    partitions: &[u16],
    nodes: &[SocketAddr],
    replicas: u16,
) -> Vec<OsString> {
    let mut arguments = lone_storage_arguments(listen, data, partitions);
    if nodes.len() > 1 {
        let urls: Vec<String> = nodes.iter().map(|node| format!("http://{node}")).collect();
        arguments.extend(["--peers".into(), urls.join(",").into()]);
    }
    if replicas > 1 {
        arguments.extend(["--replicas".into(), replicas.to_string().into()]);
    }
    arguments
}

/// The command line of a storage node that knows no other.
pub(crate) fn lone_storage_arguments(listen: SocketAddr, data: &Path, partitions: &[u16]) -> Vec<OsString> {
    let list: Vec<String> = partitions.iter().map(u16::to_string).collect();
    vec![
        "--listen".into(),
        listen.to_string().into(),
        "--data".into(),
        data.into(),
        "--partitions".into(),
        list.join(",").into(),
    ]
}

/// The variables that tell the ingest where storage is, as `NAME=VALUE`.
///
/// # Errors
/// More separate ranges of ports than spin.toml has variables.
pub(crate) fn ingest_variables(nodes: &[SocketAddr], partitions: u16) -> anyhow::Result<Vec<String>> {
    let urls: Vec<String> = nodes.iter().map(|node| format!("http://{node}")).collect();
    let hosts = outbound_hosts(nodes);
    ensure!(hosts.len() <= HOST_VARIABLES.len(), "the nodes' ports lie in too many places");
    let mut variables = vec![format!("storage_nodes={}", urls.join(",")), format!("partitions={partitions}")];
    // A slot without a host is skipped.
    let hosts = hosts.iter().map(String::as_str).chain(std::iter::repeat(""));
    variables.extend(HOST_VARIABLES.iter().zip(hosts).map(|(name, host)| format!("{name}={host}")));
    Ok(variables)
}

/// The entries of `allowed_outbound_hosts` for these nodes: neighbouring ports of one host make a range, whose end is
/// exclusive.
fn outbound_hosts(nodes: &[SocketAddr]) -> Vec<String> {
    let mut sorted = nodes.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let follows =
        |a: &SocketAddr, b: &SocketAddr| a.ip() == b.ip() && a.port().checked_add(1) == Some(b.port());
    let ranges = sorted.chunk_by(follows).filter_map(|range| match range {
        [] => None,
        [one] => Some(format!("http://{one}")),
        // The end of a range is a port too: the very last has no number after it.
        [first, .., last] => last.port().checked_add(1).map(|end| format!("http://{first}..{end}")),
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use model::route::default_node;
    use model::{Partition, PartitionCount};

    use super::*;

    fn on_ports(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect()
    }

    #[test]
    fn partitions_are_dealt_as_the_ingest_computes_it() {
        assert_eq!(deal(4, 2).unwrap(), [[0, 1], [2, 3]]);
        for partitions in 1..=32 {
            for nodes in 1..=NODES_MAX {
                let Ok(dealt) = deal(partitions, nodes) else { continue };
                assert_eq!(dealt.len(), usize::from(nodes));
                let count = PartitionCount::new(partitions).unwrap();
                for partition in 0..partitions {
                    let place = default_node(Partition::new(partition), count, nodes.into()).unwrap();
                    assert!(dealt[place].contains(&partition), "{partition} of {partitions} on {nodes}");
                }
            }
        }
    }

    #[test]
    fn with_copies_every_node_is_told_of_all_partitions() {
        assert_eq!(assign(4, 2, 1).unwrap(), deal(4, 2).unwrap());
        assert_eq!(assign(4, 3, 3).unwrap(), vec![vec![0, 1, 2, 3]; 3]);
        assert!(assign(4, 2, 3).unwrap_err().to_string().contains("--nodes 3"));
    }

    #[test]
    fn a_node_without_partitions_is_refused() {
        assert!(deal(4, 3).unwrap_err().to_string().contains("leaves node 3 without any"));
        assert!(deal(2, 3).is_err());
        assert!(deal(0, 1).is_err());
        assert!(deal(1, 0).is_err());
    }

    #[test]
    fn neighbouring_ports_are_one_range_and_the_others_a_variable_each() {
        let default = ingest_variables(&on_ports(&[8081, 8082]), 4).unwrap();
        let expected = [
            "storage_nodes=http://127.0.0.1:8081,http://127.0.0.1:8082",
            "partitions=4",
            "storage_hosts=http://127.0.0.1:8081..8083",
            "storage_hosts_2=",
            "storage_hosts_3=",
            "storage_hosts_4=",
        ];
        assert_eq!(default, expected);
        let apart = outbound_hosts(&on_ports(&[40_001, 30_000, 40_000]));
        assert_eq!(apart, ["http://127.0.0.1:30000", "http://127.0.0.1:40000..40002"]);
        assert!(ingest_variables(&on_ports(&[1, 3, 5, 7, 9]), 5).is_err());
    }

    #[test]
    fn a_node_is_told_its_address_data_and_partitions() {
        let (nodes, data) = (on_ports(&[8081, 8082]), Path::new("data/node-1"));
        let expected = ["--listen", "127.0.0.1:8081", "--data", "data/node-1", "--partitions", "0,1"];
        assert_eq!(storage_arguments(nodes[0], data, &[0, 1], &nodes[..1], 1), expected);
        let arguments = storage_arguments(nodes[0], data, &[0, 1], &nodes, 1);
        assert_eq!(arguments[6..], ["--peers", "http://127.0.0.1:8081,http://127.0.0.1:8082"]);
        let arguments = storage_arguments(nodes[0], data, &[0, 1], &nodes, 2);
        assert_eq!(arguments[8..], ["--replicas", "2"]);
    }
}
