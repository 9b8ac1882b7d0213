//! The composition root: from arguments to shards that serve until a signal.
//!
//! Invariant: what can fail for a reason that an operator can mend fails before the first connection is accepted.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Arguments;
use crate::body::Intake;
use crate::engine::{EngineLimits, Template};
use crate::guest::{DEFAULT_STORE, Grants};
use crate::instance::{InstancePool, ReusePolicy};
use crate::key_value::{KeyValue, Location};
use crate::limits;
use crate::manifest::{self, Manifest};
use crate::metrics::Metrics;
use crate::outbound::AllowedHosts;
use crate::outbound_client::OutboundClient;
use crate::own_routes::{OwnRoutes, Readiness};
use crate::server::{self, AcceptSettings};
use crate::service::RequestService;
use crate::shard::{Shard, ShardSettings};
use crate::variables::{ApplicationVariables, ComponentVariables};

/// Starts the host and serves until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever prevents the start, in words for the operator.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the event queue cannot be made")?;
    let threads = runtime.block_on(start_and_accept(arguments))?;
    for thread in threads {
        // The grace is the shard's own: this takes no longer.
        thread.join().map_err(|_| anyhow::anyhow!("a shard panicked"))?;
    }
    Ok(())
}

/// Returns the threads of the shards, which end by themselves.
async fn start_and_accept(arguments: &Arguments) -> anyhow::Result<Vec<JoinHandle<()>>> {
    // Signals are awaited before anything slow starts, so that one that comes early is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let manifest = read_manifest(&arguments.from)?;
    let readiness = Readiness::default();
    let (shards, threads) = start_shards(arguments, &manifest, &readiness)?;
    let listener =
        server::bind(arguments.listen).with_context(|| format!("cannot listen on {}", arguments.listen))?;
    announce(&listener)?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        readiness.leave();
        tokio::time::sleep(Duration::from_millis(arguments.server.drain_ms)).await;
    };
    let settings = AcceptSettings {
        connections_max: usize::try_from(arguments.server.connections_max)?,
        nagle: arguments.server.nagle,
    };
    server::accept_until(shutdown, listener, shards, settings).await;
    Ok(threads)
}

fn start_shards(
    arguments: &Arguments,
    manifest: &Manifest,
    readiness: &Readiness,
) -> anyhow::Result<(Vec<Shard>, Vec<JoinHandle<()>>)> {
    let count = arguments.threads.unwrap_or_else(cores);
    let grants = Arc::new(grant(arguments, manifest)?);
    let policy = reuse_policy(arguments, count)?;
    let template = Arc::new(load(arguments, manifest, policy, count)?);
    let metrics = Arc::new(Metrics::new());
    let intake = Intake::new(arguments.server.body_bytes_max);
    let settings = ShardSettings {
        header_read_max: Duration::from_millis(arguments.server.header_read_ms_max),
        shutdown_grace: Duration::from_millis(arguments.server.shutdown_grace_ms),
    };
    let start = |number: u32| {
        // Its own client, so that its connections to storage live on its thread.
        let outbound = OutboundClient::new(
            Arc::clone(&grants.allowed_hosts),
            arguments.server.nagle,
            Arc::clone(&metrics),
        );
        let requests = RequestService {
            route: manifest.route.clone(),
            request_max: policy.request_max,
            intake: intake.clone(),
            own: OwnRoutes { metrics: Arc::clone(&metrics), readiness: readiness.clone() },
            pool: InstancePool::new(Arc::clone(&template), Arc::clone(&grants), outbound, policy),
        };
        Shard::start(format!("shard-{number}"), settings, requests)
    };
    let started: std::io::Result<_> = (0..count).map(start).collect();
    started.context("the threads cannot be started")
}

fn read_manifest(path: &Path) -> anyhow::Result<Manifest> {
    let open = || -> std::io::Result<String> {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(limits::MANIFEST_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = open().with_context(|| format!("cannot read the manifest {}", path.display()))?;
    let manifest = manifest::parse(&text).with_context(|| format!("in the manifest {}", path.display()))?;
    for key in &manifest.ignored_keys {
        tracing::warn!("`{key}` in {} has no effect in this host", path.display());
    }
    Ok(manifest)
}

fn grant(arguments: &Arguments, manifest: &Manifest) -> anyhow::Result<Grants> {
    let from_environment = |name: &str| std::env::var(name).ok();
    let application =
        ApplicationVariables::resolve(&manifest.variables, &arguments.variables, from_environment)?;
    let component = &manifest.component;
    let variables = ComponentVariables::new(&application, &component.variables)
        .with_context(|| format!("in `component.{}.variables`", component.id))?;
    let allowed_hosts = AllowedHosts::new(&component.allowed_outbound_hosts, &application)
        .with_context(|| format!("in `component.{}`", component.id))?;
    let granted = component.key_value_stores.iter().any(|label| label == DEFAULT_STORE);
    let key_value = if granted { Some(open_key_value(arguments)?) } else { None };
    Ok(Grants {
        variables,
        key_value_stores: component.key_value_stores.clone(),
        key_value,
        allowed_hosts: Arc::new(allowed_hosts),
    })
}

fn open_key_value(arguments: &Arguments) -> anyhow::Result<KeyValue> {
    let location = match &arguments.key_value {
        Some(location) => Location::from(location.as_str()),
        None => Location::File(beside(&arguments.from, ".spin/sqlite_key_value.db")),
    };
    KeyValue::open(&location).with_context(|| match &location {
        Location::Memory => "cannot open the key-value store".to_owned(),
        Location::File(path) => format!("cannot open the key-value store {}", path.display()),
    })
}

/// The policy of each shard.
fn reuse_policy(arguments: &Arguments, shards: u32) -> anyhow::Result<ReusePolicy> {
    let instances = &arguments.instances;
    let instances_max = match instances.instances_max {
        // At least one each, whatever was asked for.
        Some(of_all_shards) => usize::try_from(of_all_shards.div_ceil(shards))?,
        None => limits::INSTANCES_PER_SHARD,
    };
    let concurrency_max = usize::try_from(instances.instance_concurrency_max)?;
    Ok(ReusePolicy {
        instances_max,
        requests_max: usize::try_from(instances.instance_requests_max)?,
        concurrency_max,
        queue_max: instances_max.saturating_mul(concurrency_max).saturating_mul(limits::QUEUE_FACTOR),
        idle: Duration::from_millis(instances.instance_idle_ms),
        request_max: Duration::from_millis(arguments.server.request_ms_max),
    })
}

fn load(
    arguments: &Arguments,
    manifest: &Manifest,
    policy: ReusePolicy,
    shards: u32,
) -> anyhow::Result<Template> {
    let component = match &arguments.component {
        Some(path) => path.clone(),
        None => beside(&arguments.from, &manifest.component.source),
    };
    let cache = match &arguments.cache_dir {
        Some(path) => path.clone(),
        None => beside(&arguments.from, ".edgelog/cache"),
    };
    let bounds = EngineLimits {
        instances_max: u32::try_from(policy.instances_max)?.saturating_mul(shards),
        concurrency_max: u32::try_from(policy.concurrency_max)?,
        memory_bytes_max: arguments.instances.instance_memory_bytes_max,
    };
    let start = std::time::Instant::now();
    let template = Template::load(&component, &cache, bounds)?;
    tracing::info!(
        application = manifest.application,
        component = %component.display(),
        ms = start.elapsed().as_millis(),
        "component loaded"
    );
    Ok(template)
}

/// The one line on standard output: whoever started the host with port 0 reads the port there.
fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    let address: SocketAddr = listener.local_addr()?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on http://{address}")?;
    stdout.flush()?;
    Ok(())
}

/// A path relative to the manifest's directory.
fn beside(manifest: &Path, path: &str) -> PathBuf {
    manifest.parent().unwrap_or(Path::new("")).join(path)
}

fn cores() -> u32 {
    std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok()).unwrap_or(1)
}
