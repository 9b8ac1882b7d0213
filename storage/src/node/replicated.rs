//! What a node has more of when its partitions have replicas: its identity, an address for other nodes, the groups.
//!
//! Invariant: what an operator can mend (a secret, an address, a directory of another kind) fails before the node says
//! that it listens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::Partition;
use tokio::task::JoinHandle;
use url::Url;

use super::{NodeError, server_options};
use crate::cluster::ClusterView;
use crate::config::{Config, Fsync};
use crate::http::{self as api, ListeningServer, Server};
use crate::log::{self, Disk, PartitionLog, RealDisk, RecoveryReport};
use crate::outbound::Scheme;
use crate::partition::PartitionHandle;
use crate::raft::{
    self, Cluster, ClusterParts, Directory, FoundLog, Group, GroupParts, Identity, LogStore, Member, Network,
    NodeClient, Own, Room, Secret, Timing,
};
use crate::tls::NodeTls;

/// A node's part in its cluster, before there are groups.
#[derive(Debug)]
pub(super) struct Replication {
    internal: ListeningServer,
    secret: Secret,
    tls: Option<NodeTls>,
    identity: Identity,
}

/// A running part in a cluster.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) cluster: Arc<Cluster>,
    stop: tokio::sync::oneshot::Sender<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Replication {
    /// Gets what the node needs for it; `None` without replication.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, NodeError> {
        // Without replication nobody is talked to by it: whoever names the files means them all the same.
        let tls = NodeTls::of(&config.cluster.tls).map_err(NodeError::Tls)?;
        if config.cluster.replicas == 1 {
            return if config.cluster.join.is_empty() {
                Ok(None)
            } else {
                Err(NodeError::JoinWithoutReplicas)
            };
        }
        if config.log.fsync != Fsync::Always {
            return Err(NodeError::FsyncWithReplicas);
        }
        let address = config.cluster.internal_listen.unwrap_or(SocketAddr::new(config.listen.ip(), 0));
        let secret = match &config.cluster.cluster_secret_file {
            Some(path) => Secret::read(path).map_err(NodeError::Secret)?,
            None if address.ip().is_loopback() => Secret::none(),
            None => return Err(NodeError::NoSecret { address }),
        };
        let internal = Server::bind(address, server_options(config))
            .and_then(Server::listen)
            .map_err(|source| NodeError::Listen { address, source })?
            .with_tls(tls.as_ref());
        let identity = Identity::of_directory(&RealDisk, &config.data).map_err(NodeError::Identity)?;
        Ok(Some(Self { internal, secret, tls, identity }))
    }

    /// Starts a replica of each partition. The handles send their batches there from then on.
    pub(super) async fn start(
        self,
        config: &Config,
        view: &ClusterView,
        found: Vec<FoundLog>,
        partitions: &mut [PartitionHandle],
    ) -> Result<Running, NodeError> {
        let Self { internal, secret, tls, identity } = self;
        let timing = Timing::new(config.cluster.election_timeout);
        let client = NodeClient::new(secret.clone(), tls.as_ref());
        let own = own(config, view, &internal, client.scheme())?;
        if let Some(tls) = &tls {
            warn_if_not_for(tls, &own.internal);
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let vouched = raft::read_known(&*disk, &config.data).map_err(NodeError::Known)?;
        let directory = Arc::new(Directory::new(view.peer_urls(), vouched, client.scheme()));
        let network = Network::new(client.clone(), Arc::clone(&directory), timing.request());
        let mut groups = Vec::new();
        let mut tasks = Vec::new();
        for (handle, found) in partitions.iter_mut().zip(found) {
            let partition = handle.partition();
            let parts = GroupParts {
                node: identity.node.0,
                partition,
                store: LogStore::new(partition, found, handle.log_access()),
                network: network.of_group(partition),
                directory: Arc::clone(&directory),
                timing,
                acks: config.cluster.acks.into(),
                room: Room::new(Arc::clone(&disk), log::partition_dir(&config.data, partition)),
            };
            let group = Group::start(parts)
                .await
                .map_err(|error| NodeError::Replica { partition, reason: error.to_string() })?;
            let (proposing, waiting) = handle.clone().with_proposals();
            *handle = proposing;
            tasks.push(tokio::spawn(group.clone().propose_all(waiting)));
            groups.push(group);
        }
        let cluster = Arc::new(Cluster::new(ClusterParts {
            own,
            identity,
            disk,
            data: config.data.clone(),
            copies: config.cluster.replicas.into(),
            gone_after: config.cluster.replace_after,
            timing,
            client,
            secret,
            directory,
            is_joining: !config.cluster.join.is_empty(),
            groups,
        }));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let router = api::internal_router(Arc::clone(&cluster));
        tasks.push(tokio::spawn(async move {
            internal.serve(router, async { stopped.await.unwrap_or_default() }).await;
        }));
        tasks.push(tokio::spawn(Arc::clone(&cluster).run()));
        Ok(Running { cluster, stop, tasks })
    }
}

impl Running {
    /// Ends the replicas; the partitions' logs are closed after that.
    pub(super) async fn stop(self) {
        self.cluster.stop().await;
        // One that has ended needs not be told.
        self.stop.send(()).ok();
        for task in self.tasks {
            task.abort();
        }
    }
}

/// Prepares a log for its replica.
pub(super) fn prepare_log(
    partition: Partition,
    log: &mut PartitionLog,
    report: &RecoveryReport,
) -> Result<FoundLog, NodeError> {
    FoundLog::prepare(log, report)
        .map_err(|error| NodeError::Replica { partition, reason: error.to_string() })
}

/// Others may know the node by another name than it does itself: only they can tell for sure.
fn warn_if_not_for(tls: &NodeTls, internal: &str) {
    let host = Url::parse(internal).ok().and_then(|url| url.host_str().map(str::to_owned));
    if let Some(host) = host
        && let Err(error) = tls.is_for(&host)
    {
        tracing::warn!(%host, %error, "the certificate of --cluster-cert is not for the host by which others are likely to call this node");
    }
}

fn own(
    config: &Config,
    view: &ClusterView,
    internal: &ListeningServer,
    scheme: Scheme,
) -> Result<Own, NodeError> {
    let address = internal.local_address().map_err(NodeError::Announce)?;
    let host = match address.ip() {
        // Others reach it at the host by which clients do.
        ip if ip.is_unspecified() => {
            Url::parse(view.url()).ok().and_then(|url| url.host_str().map(str::to_owned))
        }
        IpAddr::V4(ip) => Some(ip.to_string()),
        IpAddr::V6(ip) => Some(format!("[{ip}]")),
    };
    let host = host.unwrap_or_else(|| address.ip().to_string());
    Ok(Own {
        member: Member {
            name: view.name().to_owned(),
            url: view.url().to_owned(),
            zone: config.cluster.zone.clone(),
            placed: false,
        },
        internal: format!("{}://{host}:{}", scheme.as_str(), address.port()),
    })
}
