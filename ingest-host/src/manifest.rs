//! The part of a Spin 2 manifest (`spin.toml`) that this host understands: text in, a checked [`Manifest`] out.
//!
//! Invariant: a `Manifest` names exactly one component, and that component exists and has a source.
//! It must not know of variables' values, files or sockets: templates stay as they were written.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A checked manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The application's name, for the log.
    pub(crate) application: String,
    /// The application's variables, by name.
    pub(crate) variables: BTreeMap<String, VariableDeclaration>,
    /// The paths that the component serves.
    pub(crate) route: Route,
    /// The one component of the one HTTP trigger.
    pub(crate) component: ComponentManifest,
    /// Keys that Spin would honour and this host does not, as dotted paths. The caller should warn of them.
    pub(crate) ignored_keys: Vec<String>,
}

/// An entry of `[variables]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct VariableDeclaration {
    /// The value where neither a flag nor the environment gives one.
    pub(crate) default: Option<String>,
    /// Whether the application must not start without a value.
    #[serde(default)]
    pub(crate) required: bool,
    /// Whether the value must not be logged. (This host logs no values at all.)
    #[serde(default)]
    pub(crate) secret: bool,
}

/// The component's table in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ComponentManifest {
    /// The component's id.
    pub(crate) id: String,
    /// Path of the compiled component, relative to the manifest.
    pub(crate) source: String,
    /// Templates of the hosts that it may call.
    pub(crate) allowed_outbound_hosts: Vec<String>,
    /// Labels of the key-value stores that it may open.
    pub(crate) key_value_stores: Vec<String>,
    /// The variables that it sees, as templates, by name.
    pub(crate) variables: BTreeMap<String, String>,
}

/// The paths that a trigger serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// This path only.
    Exact(String),
    /// This path (without its trailing slash) and everything below it: `/…/...` in the manifest.
    Below(String),
}

impl Route {
    /// Whether a request's path is served.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Below(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    fn parse(route: &str) -> Result<Self, ManifestError> {
        if !route.starts_with('/') {
            return Err(ManifestError::Route(route.to_owned()));
        }
        match route.strip_suffix("/...") {
            Some(prefix) => Ok(Self::Below(prefix.to_owned())),
            None => Ok(Self::Exact(route.to_owned())),
        }
    }
}

/// Why a manifest cannot be used. Every message names the key at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// Not TOML, or a key has the wrong type or is missing.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// Another manifest version.
    #[error("`spin_manifest_version` is {0}; only version 2 is supported")]
    Version(i64),
    /// None or several HTTP triggers.
    #[error("`[[trigger.http]]` must appear exactly once; it appears {0} times")]
    Triggers(usize),
    /// The trigger's route is not a path.
    #[error("`trigger.http.route` {0:?} must start with '/'")]
    Route(String),
    /// The trigger names a component that does not exist.
    #[error("`trigger.http.component` names {0:?}, but there is no `[component.{0}]`")]
    NoComponent(String),
    /// A variable has neither a default nor `required = true`.
    #[error("`variables.{0}` needs either `default` or `required = true`")]
    VariableWithoutDefault(String),
    /// A variable has both.
    #[error("`variables.{0}` has both `default` and `required = true`")]
    VariableWithBoth(String),
}

/// Parses and checks a manifest.
///
/// # Errors
/// [`ManifestError`], whose message names the key at fault.
pub(crate) fn parse(text: &str) -> Result<Manifest, ManifestError> {
    let document: Document = toml::from_str(text)?;
    if document.spin_manifest_version != 2 {
        return Err(ManifestError::Version(document.spin_manifest_version));
    }
    for (name, declaration) in &document.variables {
        match (&declaration.default, declaration.required) {
            (None, false) => return Err(ManifestError::VariableWithoutDefault(name.clone())),
            (Some(_), true) => return Err(ManifestError::VariableWithBoth(name.clone())),
            _ => {}
        }
    }
    let triggers = document.trigger.http.len();
    let [trigger] =
        <[HttpTrigger; 1]>::try_from(document.trigger.http).map_err(|_| ManifestError::Triggers(triggers))?;
    let mut components = document.component;
    let Some(component) = components.remove(&trigger.component) else {
        return Err(ManifestError::NoComponent(trigger.component));
    };
    let id = trigger.component;
    let ignored_keys = component
        .other
        .keys()
        .filter(|key| !WITHOUT_EFFECT_AT_RUN_TIME.contains(&key.as_str()))
        .map(|key| format!("component.{id}.{key}"))
        .chain(components.keys().map(|other| format!("component.{other}")))
        .collect();
    Ok(Manifest {
        application: document.application.name,
        variables: document.variables,
        route: Route::parse(&trigger.route)?,
        component: ComponentManifest {
            id,
            source: component.source,
            allowed_outbound_hosts: component.allowed_outbound_hosts,
            key_value_stores: component.key_value_stores,
            variables: component.variables,
        },
        ignored_keys,
    })
}

/// Keys of a component that matter to `spin build` or to people alone.
const WITHOUT_EFFECT_AT_RUN_TIME: [&str; 3] = ["build", "description", "tool"];

#[derive(Deserialize)]
struct Document {
    spin_manifest_version: i64,
    application: Application,
    #[serde(default)]
    variables: BTreeMap<String, VariableDeclaration>,
    #[serde(default)]
    trigger: Triggers,
    #[serde(default)]
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Application {
    name: String,
}

#[derive(Default, Deserialize)]
struct Triggers {
    #[serde(default)]
    http: Vec<HttpTrigger>,
}

#[derive(Deserialize)]
struct HttpTrigger {
    route: String,
    component: String,
}

#[derive(Deserialize)]
struct Component {
    source: String,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    key_value_stores: Vec<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(flatten)]
    other: BTreeMap<String, toml::Value>,
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
