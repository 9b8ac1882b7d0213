//! `storage forget`: give back the room of replicas that a node let go, while no daemon runs on its directory.
//!
//! Invariant: nothing is deleted of a replica that its partition's leader counts as a member, as it says now. What the
//! replica has promised stays: should it be wrong all the same, it is one that lost its records, and neither votes nor
//! leads before it has them again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use http::{Method, StatusCode};
use model::Partition;
use tokio::time::{Instant, sleep};
use url::Url;

use super::operate::{
    Access, LOOK_INTERVAL, OperateError, Operator, SILENCE_MAX, base, in_time, is_for_later, say,
};
use super::{Outcome, ToolError, partitions_in};
use crate::clock::unix_now_ms;
use crate::config::parse_node_url;
use crate::log::{LogOptions, PartitionLog, RealDisk};
use crate::raft::{FoundLog, FoundLogError, HexId, Identity, NodeCard};

/// What to forget.
#[derive(Args, Clone, Debug)]
pub struct ForgetArgs {
    /// The node's data directory; its daemon has to be stopped
    #[arg(value_name = "DIR")]
    pub data: PathBuf,
    /// Another node of the cluster, which is asked who holds what
    #[arg(long, value_parser = parse_node_url, value_name = "URL")]
    pub node: Url,
    /// Only these partitions; without it, all that the node has let go
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    pub partition: Vec<Partition>,
    /// How the cluster is reached.
    #[command(flatten)]
    pub access: Access,
}

/// What is to become of a partition's files.
enum Verdict {
    /// The node has no replica: their leader says so.
    Free,
    /// It may have one.
    Kept(&'static str),
}

/// Why the cluster does not know just now; it will.
struct Unclear(&'static str);

pub(super) fn forget(args: &ForgetArgs, out: &mut dyn Write) -> Result<Outcome, ToolError> {
    let identity = Identity::found_in(&RealDisk, &args.data)?
        .ok_or_else(|| ToolError::Operate(OperateError::NoReplicas(args.data.clone())))?;
    let here = partitions_in(&args.data)?;
    let wanted = |partition: &Partition| args.partition.is_empty() || args.partition.contains(partition);
    if let Some(missing) = args.partition.iter().find(|named| here.iter().all(|(found, _)| found != *named)) {
        return Err(OperateError::NotHere(*missing).into());
    }
    in_time(&args.access, async |operator: &Operator| {
        let patience = Instant::now() + SILENCE_MAX;
        for (partition, dir) in here.iter().filter(|(partition, _)| wanted(partition)) {
            // Held from before it is asked: nobody can start a daemon that is given the replica meanwhile.
            let (mut log, report) = PartitionLog::open(
                Arc::new(RealDisk),
                dir,
                *partition,
                LogOptions::default(),
                unix_now_ms(),
            )?;
            let verdict = settled(operator, &base(&args.node), *partition, identity.node, patience).await?;
            match verdict {
                Verdict::Free => {
                    let freed = bytes_in(dir);
                    FoundLog::forget(&mut log, &report).map_err(|error| not_forgotten(*partition, error))?;
                    log.close()?;
                    let freed = freed.saturating_sub(bytes_in(dir));
                    say(out, &format!("partition {partition}: forgotten, {freed} bytes are free"))?;
                }
                Verdict::Kept(why) if args.partition.is_empty() => {
                    say(out, &format!("partition {partition}: kept, as {why}"))?;
                }
                Verdict::Kept(why) => {
                    return Err(
                        OperateError::NotForgotten { partition: *partition, reason: why.to_owned() }.into()
                    );
                }
            }
        }
        Ok(())
    })
}

/// What the partition's leader says of this node. An election, or a restart, is waited for until `deadline`.
async fn settled(
    operator: &Operator,
    url: &str,
    partition: Partition,
    own: HexId,
    deadline: Instant,
) -> Result<Verdict, OperateError> {
    loop {
        let why = match ask(operator, url, partition, own).await {
            Ok(Ok(verdict)) => return Ok(verdict),
            Ok(Err(Unclear(why))) => why,
            Err(OperateError::Call { .. }) => "its leader does not answer",
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            return Ok(Verdict::Kept(why));
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// What the partition's leader says of this node.
async fn ask(
    operator: &Operator,
    url: &str,
    partition: Partition,
    own: HexId,
) -> Result<Result<Verdict, Unclear>, OperateError> {
    let seen = operator.cluster(url).await?;
    let Some(state) = seen.partitions.iter().find(|state| state.partition == partition) else {
        return Ok(Ok(Verdict::Kept("the cluster does not know the partition")));
    };
    let Some(leader) = &state.leader else { return Ok(Err(Unclear("nobody leads it just now"))) };
    let answer = operator.command(Method::GET, leader, "/cluster/node").await?;
    if is_for_later(answer.status) {
        return Ok(Err(Unclear("its leader is not ready")));
    }
    if answer.status != StatusCode::OK {
        return Err(answer.refusal());
    }
    let card: NodeCard = answer.json()?;
    let led = card.groups.iter().find(|status| status.partition == partition && status.leads);
    Ok(match led {
        None => Err(Unclear("who leads it is changing")),
        Some(status) if status.members.iter().any(|member| member.id == own) => {
            Ok(Verdict::Kept("the node has a replica of it"))
        }
        Some(_) => Ok(Verdict::Free),
    })
}

fn not_forgotten(partition: Partition, error: FoundLogError) -> ToolError {
    match error {
        FoundLogError::Log(error) => error.into(),
        other => OperateError::NotForgotten { partition, reason: other.to_string() }.into(),
    }
}

/// What a directory's files take, for telling it alone.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}
