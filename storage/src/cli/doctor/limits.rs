//! What the system allows the process: open files and memory, against what the settings ask for.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Config;

/// Descriptors besides connections and segments: the log's own, the runtime's, standard streams.
const FILES_OTHER: u64 = 64;
/// Descriptors of an open segment: records, index, ids.
const FILES_PER_SEGMENT: u64 = 3;
/// Segments that a partition is counted with where it has fewer yet.
const SEGMENTS_MIN: u64 = 64;
/// Memory besides what the settings bound: code, connections, batches that are being written.
const MEMORY_OTHER: u64 = 32 << 20;

/// Looks at the limits.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    vec![files(config), memory(config)]
}

fn files(config: &Config) -> Finding {
    let partitions = config.partitions_sorted().len() as u64;
    let wanted =
        u64::from(config.http.connections) + partitions * SEGMENTS_MIN * FILES_PER_SEGMENT + FILES_OTHER;
    // The daemon raises its own limit up to this one.
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let seen = format!("{allowed} may be open; {wanted} may be wanted");
    if allowed < wanted {
        return Finding::warning(
            "open files",
            seen,
            "raise LimitNOFILE= in the unit, or `ulimit -Hn`, or lower --connections",
        );
    }
    Finding::ok("open files", seen)
}

fn memory(config: &Config) -> Finding {
    let bounded = [config.load.body_bytes_max(), config.query.index_memory, config.query.index_cache];
    let wanted = bounded.into_iter().map(|bytes| bytes as u64).sum::<u64>() + MEMORY_OTHER;
    let Some(allowed) = memory_allowed() else {
        return Finding::ok("memory", format!("up to {} MiB may be wanted", wanted >> 20));
    };
    let seen = format!("{} MiB may be used; up to {} MiB may be wanted", allowed >> 20, wanted >> 20);
    if allowed < wanted {
        return Finding::warning(
            "memory",
            seen,
            "give it more, or lower --body-bytes, --index-memory and --index-cache",
        );
    }
    Finding::ok("memory", seen)
}

/// The memory of this control group or machine; `None` where the system does not tell.
fn memory_allowed() -> Option<u64> {
    let group =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let meminfo = fs::read_to_string("/proc/meminfo").ok();
    let machine = meminfo.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
        line.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
    });
    match (group, machine) {
        (Some(group), Some(machine)) => Some(machine.min(group)),
        (one, other) => one.or(other),
    }
}
