//! What one instance of the component can reach: the state behind its store, and the imports that use it.
//!
//! Invariant: an instance reaches the variables, stores and hosts that the manifest grants, and nothing else: no
//! files, no environment, no sockets.

use std::sync::Arc;

use wasmtime::component::{Accessor, FutureReader, HasSelf, Linker, Resource, ResourceTable, StreamReader};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::bindings::spin::key_value::key_value;
use crate::bindings::spin::variables::variables;
use crate::guest_log::GuestLog;
use crate::key_value::{KeyValue, KeyValueError};
use crate::limits;
use crate::outbound::AllowedHosts;
use crate::outbound_client::OutboundClient;
use crate::variables::{ComponentVariables, LookupError};

/// The one store that exists, as in Spin without a runtime configuration.
pub(crate) const DEFAULT_STORE: &str = "default";

/// What the manifest grants to the component: shared by all instances.
pub(crate) struct Grants {
    /// The variables that it sees.
    pub(crate) variables: ComponentVariables,
    /// The labels of the stores that it may open.
    pub(crate) key_value_stores: Vec<String>,
    /// The store itself; `None` where none is granted.
    pub(crate) key_value: Option<KeyValue>,
    /// The hosts that it may call.
    pub(crate) allowed_hosts: Arc<AllowedHosts>,
}

/// The state of one instance.
pub(crate) struct GuestState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: OutboundHooks,
    grants: Arc<Grants>,
    open_stores: usize,
}

impl GuestState {
    /// The state of a new instance; its requests go through `outbound`.
    pub(crate) fn new(grants: Arc<Grants>, outbound: OutboundClient) -> Self {
        let wasi = WasiCtx::builder()
            .stdout(GuestLog::Stdout)
            .stderr(GuestLog::Stderr)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self {
            wasi,
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            hooks: OutboundHooks { client: outbound },
            grants,
            open_stores: 0,
        }
    }

    /// Makes all that a component may import available to it.
    ///
    /// # Errors
    /// When an interface is defined twice, which would be a fault of this crate.
    pub(crate) fn add_to_linker(linker: &mut Linker<Self>) -> wasmtime::Result<()> {
        wasmtime_wasi::p2::add_to_linker_async(linker)?;
        wasmtime_wasi::p3::add_to_linker(linker)?;
        wasmtime_wasi_http::p3::add_to_linker(linker)?;
        key_value::add_to_linker::<_, HasSelf<Self>>(linker, |state| state)?;
        variables::add_to_linker::<_, HasSelf<Self>>(linker, |state| state)
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// Sends the component's requests through [`OutboundClient`].
struct OutboundHooks {
    client: OutboundClient,
}

/// How a request's transmission went, for those who want to know.
type Transmission = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for OutboundHooks {
    fn default_scheme(&mut self) -> Option<http::uri::Scheme> {
        Some(http::uri::Scheme::HTTP)
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_processed: Transmission,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Transmission), Error>> + Send> {
        let client = self.client.clone();
        Box::new(async move {
            let response = client.send(request, options.unwrap_or_default()).await?;
            // The pool drives its connections itself: nothing is left to wait for.
            let done: Transmission = Box::new(std::future::ready(Ok(())));
            Ok((response, done))
        })
    }
}

impl variables::Host for GuestState {}

impl<T: Send> variables::HostWithStore<T> for HasSelf<GuestState> {
    async fn get(
        accessor: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<String, variables::Error>> {
        Ok(accessor.with(|mut access| match access.get().grants.variables.get(&name) {
            Ok(value) => Ok(value.to_owned()),
            Err(LookupError::InvalidName) => Err(variables::Error::InvalidName(name)),
            Err(LookupError::Undefined) => Err(variables::Error::Undefined(name)),
        }))
    }
}

/// An open key-value store: the resource behind the component's handle.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct OpenStore {
    label: Arc<str>,
    store: KeyValue,
}

impl key_value::Host for GuestState {}

impl key_value::HostStore for GuestState {
    async fn drop(&mut self, store: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        self.open_stores = self.open_stores.saturating_sub(1);
        Ok(())
    }
}

impl GuestState {
    fn open_store(&mut self, label: &str) -> wasmtime::Result<Result<Resource<OpenStore>, key_value::Error>> {
        if !self.grants.key_value_stores.iter().any(|name| name == label) {
            return Ok(Err(key_value::Error::AccessDenied));
        }
        let store = match &self.grants.key_value {
            Some(store) if label == DEFAULT_STORE => store.clone(),
            _ => return Ok(Err(key_value::Error::NoSuchStore)),
        };
        if self.open_stores >= limits::OPEN_STORES_MAX {
            return Ok(Err(key_value::Error::StoreTableFull));
        }
        let opened = self.table.push(OpenStore { label: Arc::from(label), store })?;
        self.open_stores += 1;
        Ok(Ok(opened))
    }
}

/// The store behind a handle. An unknown handle is a fault of the guest, and a trap.
fn opened<T: Send>(
    accessor: &Accessor<T, HasSelf<GuestState>>,
    store: &Resource<OpenStore>,
) -> wasmtime::Result<OpenStore> {
    accessor.with(|mut access| Ok(access.get().table.get(store)?.clone()))
}

impl From<KeyValueError> for key_value::Error {
    fn from(error: KeyValueError) -> Self {
        Self::Other(error.to_string())
    }
}

impl<T: Send> key_value::HostStoreWithStore<T> for HasSelf<GuestState> {
    async fn open(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> wasmtime::Result<Result<Resource<OpenStore>, key_value::Error>> {
        accessor.with(|mut access| access.get().open_store(&label))
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, key_value::Error>> {
        let OpenStore { label, store } = opened(accessor, &store)?;
        Ok(store.get(&label, key).await.map_err(Into::into))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), key_value::Error>> {
        let OpenStore { label, store } = opened(accessor, &store)?;
        Ok(store.set(&label, key, value).await.map_err(Into::into))
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<(), key_value::Error>> {
        let OpenStore { label, store } = opened(accessor, &store)?;
        Ok(store.delete(&label, key).await.map_err(Into::into))
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<bool, key_value::Error>> {
        let OpenStore { label, store } = opened(accessor, &store)?;
        Ok(store.exists(&label, key).await.map_err(Into::into))
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), key_value::Error>>)> {
        let OpenStore { label, store } = opened(accessor, &store)?;
        let (keys, outcome) = match store.keys(&label).await {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(key_value::Error::from(error))),
        };
        accessor.with(|mut access| {
            let keys = StreamReader::new(&mut access, keys)?;
            let outcome = FutureReader::new(&mut access, async { wasmtime::error::Ok(outcome) })?;
            Ok((keys, outcome))
        })
    }
}
