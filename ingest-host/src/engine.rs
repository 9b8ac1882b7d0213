//! Wasmtime set up for this purpose: the engine, the compiled component and how to make an instance of it.
//!
//! Invariant: all instances together never exceed `instances_max` times `memory_bytes_max` of linear memory: the
//! pooling allocator has no more slots. It must not know of requests and queues.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use wasmtime::component::{Component, Linker};
use wasmtime::{
    Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store,
    UpdateDeadline,
};
use wasmtime_wasi_http::handler::Proxy;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::guest::GuestState;
use crate::limits;

/// The bounds of what the engine allocates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineLimits {
    /// Instances that exist at once.
    pub(crate) instances_max: u32,
    /// Requests that one instance has in hand at once: each may need a stack of its own.
    pub(crate) concurrency_max: u32,
    /// Linear memory of one instance, in bytes.
    pub(crate) memory_bytes_max: usize,
}

/// A component that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine's settings do not fit this machine.
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
    /// The directory for compiled code cannot be used.
    #[error("the directory for compiled code {path:?} cannot be used: {reason}")]
    Cache {
        /// The directory.
        path: String,
        /// Wasmtime's reason.
        reason: String,
    },
    /// Not a component, or one that this host cannot serve.
    #[error("the component {path:?} cannot be loaded: {reason}")]
    Component {
        /// Its file.
        path: String,
        /// Wasmtime's reason.
        reason: String,
    },
}

/// A compiled component, ready to be instantiated on any shard.
pub(crate) struct Template {
    engine: Engine,
    service: ServicePre<GuestState>,
}

/// One instance and all that it has in memory.
pub(crate) struct Instance {
    pub(crate) store: Store<GuestState>,
    pub(crate) service: Proxy,
    /// Set whenever the guest gives its thread back in the midst of computing.
    pub(crate) yielded: Arc<AtomicBool>,
}

impl Template {
    /// Compiles a component, or takes the code of an earlier start from `cache_directory`. It blocks for as long
    /// as that takes (seconds).
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn load(
        component: &Path,
        cache_directory: &Path,
        bounds: EngineLimits,
    ) -> Result<Self, EngineError> {
        let mut config = configure(bounds);
        config.cache(Some(open_cache(cache_directory)?));
        let engine = Engine::new(&config).map_err(|error| EngineError::Engine(chain(&error)))?;
        let service = load_service(&engine, component).map_err(|error| EngineError::Component {
            path: component.display().to_string(),
            reason: chain(&error),
        })?;
        start_epochs(&engine)?;
        Ok(Self { engine, service })
    }

    /// Makes an instance.
    ///
    /// # Errors
    /// When its slot is taken, or the guest traps while it starts.
    pub(crate) async fn instantiate(&self, state: GuestState) -> wasmtime::Result<Instance> {
        let mut store = Store::new(&self.engine, state);
        let yielded = Arc::new(AtomicBool::new(false));
        yield_at_every_tick(&mut store, Arc::clone(&yielded));
        let service = self.service.instantiate_async(&mut store).await?;
        Ok(Instance { store, service: Proxy::P3(service), yielded })
    }
}

/// A guest that computes gives its thread back at every tick. tokio's own way to yield has connections and timers
/// looked after before it comes back; without it they would wait for dozens of ticks.
fn yield_at_every_tick(store: &mut Store<GuestState>, yielded: Arc<AtomicBool>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        yielded.store(true, Relaxed);
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
}

fn configure(bounds: EngineLimits) -> Config {
    let instances = bounds.instances_max;
    let core_instances = instances.saturating_mul(limits::CORE_INSTANCES_PER_COMPONENT);
    // One stack per request, and some for calls that the component makes of itself.
    let stacks = instances.saturating_mul(bounds.concurrency_max.saturating_add(4));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(core_instances)
        .total_memories(instances)
        .total_tables(core_instances)
        .total_stacks(stacks)
        .max_core_instances_per_component(limits::CORE_INSTANCES_PER_COMPONENT)
        .max_tables_per_component(limits::CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(1)
        .max_memory_size(bounds.memory_bytes_max)
        .table_elements(limits::TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(limits::SLOT_RESIDENT_BYTES);
    let mut config = Config::new();
    config
        .wasm_component_model_async(true)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

fn open_cache(directory: &Path) -> Result<Cache, EngineError> {
    // Wasmtime wants an absolute path, and that of a directory which may not exist yet cannot be canonicalised.
    let absolute = std::path::absolute(directory).map_err(|error| EngineError::Cache {
        path: directory.display().to_string(),
        reason: error.to_string(),
    })?;
    let mut config = CacheConfig::new();
    config.with_directory(absolute);
    // Code that was taken often would be compressed anew beside the traffic, for some 160 MB of memory.
    config.with_optimized_compression_usage_counter_threshold(u64::MAX);
    Cache::new(config)
        .map_err(|error| EngineError::Cache { path: directory.display().to_string(), reason: chain(&error) })
}

fn load_service(engine: &Engine, path: &Path) -> wasmtime::Result<ServicePre<GuestState>> {
    let component = Component::from_file(engine, path)?;
    let mut linker = Linker::new(engine);
    GuestState::add_to_linker(&mut linker)?;
    ServicePre::new(linker.instantiate_pre(&component)?)
}

/// Advances the engine's epoch for as long as the engine lives.
fn start_epochs(engine: &Engine) -> Result<(), EngineError> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("epoch".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(limits::EPOCH_TICK);
            }
        })
        .map(drop)
        .map_err(|error| EngineError::Engine(error.to_string()))
}

/// Wasmtime's error with its causes, in one line.
pub(crate) fn chain(error: &wasmtime::Error) -> String {
    format!("{error:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_is_taken_often_is_not_compressed_anew() {
        let directory = tempfile::tempdir().unwrap();
        let cache = open_cache(directory.path()).unwrap();
        assert_eq!(cache.optimized_compression_usage_counter_threshold(), u64::MAX);
    }
}
