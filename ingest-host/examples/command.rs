//! Runs a command-line component (`wasi:cli/run`) with this host's Wasmtime: `command FILE`. For benchmarks: what is
//! measured so runs on the machine code that the ingest component runs on.

use anyhow::{Context as _, anyhow, ensure};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, OptLevel, Store};
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: command FILE")?;
    let mut config = Config::new();
    config.cranelift_opt_level(OptLevel::Speed);
    let engine = Engine::new(&config).map_err(|error| anyhow!("{error:?}"))?;
    let component = Component::from_file(&engine, path).map_err(|error| anyhow!("{error:?}"))?;
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(|error| anyhow!("{error:?}"))?;
    let wasi = WasiCtx::builder().inherit_stdout().inherit_stderr().build();
    let mut store = Store::new(&engine, State { wasi, table: ResourceTable::new() });
    let command = Command::instantiate_async(&mut store, &component, &linker).await;
    let command = command.map_err(|error| anyhow!("{error:?}"))?;
    let ended = command.wasi_cli_run().call_run(&mut store).await.map_err(|error| anyhow!("{error:?}"))?;
    ensure!(ended.is_ok(), "the component failed");
    Ok(())
}
