//! The two Spin interfaces of `wit/`, as traits that [`crate::guest`] implements.

wasmtime::component::bindgen!({
    path: "wit",
    world: "host",
    imports: { default: async | trappable },
    with: { "spin:key-value/key-value.store": crate::guest::OpenStore },
});
