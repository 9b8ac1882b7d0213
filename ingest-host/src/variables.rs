//! Variables as Spin has them: where a value comes from, `{{ name }}` templates, and what a component may see.
//!
//! Invariant: once resolved, every declared variable has a value, and a component sees exactly the names that its
//! own table declares. It must not know where the process's environment or arguments come from: they are passed in.

use std::collections::BTreeMap;

use crate::manifest::VariableDeclaration;

/// The application's variables with their values.
#[derive(Clone, Default)]
pub(crate) struct ApplicationVariables {
    values: BTreeMap<String, String>,
}

/// Why the variables could not be resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum VariableError {
    /// A required variable without a value.
    #[error(
        "variable `{name}` is required and has no value: pass `--variable {name}=VALUE` or set {environment}"
    )]
    Required {
        /// The variable.
        name: String,
        /// The environment variable that would set it.
        environment: String,
    },
    /// A flag that sets what the manifest does not declare.
    #[error("`--variable {0}=…` sets a variable that `[variables]` does not declare")]
    Undeclared(String),
    /// A template names what the manifest does not declare.
    #[error("template {template:?} names `{name}`, which `[variables]` does not declare")]
    UnknownInTemplate {
        /// The template.
        template: String,
        /// The name.
        name: String,
    },
    /// `{{` without `}}`.
    #[error("template {0:?} has `{{{{` without `}}}}`")]
    Unclosed(String),
}

impl ApplicationVariables {
    /// Gives every declared variable its value: a flag's, else the environment's (`SPIN_VARIABLE_NAME`), else
    /// the default.
    ///
    /// # Errors
    /// [`VariableError::Required`] and [`VariableError::Undeclared`].
    pub(crate) fn resolve(
        declared: &BTreeMap<String, VariableDeclaration>,
        flags: &[(String, String)],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, VariableError> {
        if let Some((name, _)) = flags.iter().find(|(name, _)| !declared.contains_key(name)) {
            return Err(VariableError::Undeclared(name.clone()));
        }
        let value_of = |name: &String, declaration: &VariableDeclaration| {
            let variable = format!("SPIN_VARIABLE_{}", name.to_uppercase());
            // The last flag wins, as with any repeated option.
            let flag = flags.iter().rev().find(|(flag, _)| flag == name);
            flag.map(|(_, value)| value.clone())
                .or_else(|| environment(&variable))
                .or_else(|| declaration.default.clone())
                .ok_or(VariableError::Required { name: name.clone(), environment: variable })
        };
        let values = declared
            .iter()
            .map(|(name, declaration)| Ok((name.clone(), value_of(name, declaration)?)))
            .collect::<Result<_, VariableError>>()?;
        Ok(Self { values })
    }

    /// Replaces every `{{ name }}` of a template.
    ///
    /// # Errors
    /// [`VariableError::UnknownInTemplate`] and [`VariableError::Unclosed`].
    pub(crate) fn expand(&self, template: &str) -> Result<String, VariableError> {
        let mut expanded = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((literal, after)) = rest.split_once("{{") {
            let Some((name, tail)) = after.split_once("}}") else {
                return Err(VariableError::Unclosed(template.to_owned()));
            };
            let name = name.trim();
            let Some(value) = self.values.get(name) else {
                return Err(VariableError::UnknownInTemplate {
                    template: template.to_owned(),
                    name: name.to_owned(),
                });
            };
            expanded.push_str(literal);
            expanded.push_str(value);
            rest = tail;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

/// What one component sees.
#[derive(Clone, Default)]
pub(crate) struct ComponentVariables {
    values: BTreeMap<String, String>,
}

/// Why a component did not get a variable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// Not a name that a variable can have.
    InvalidName,
    /// The component's table does not declare it.
    Undefined,
}

impl ComponentVariables {
    /// Expands a component's table.
    ///
    /// # Errors
    /// As [`ApplicationVariables::expand`].
    pub(crate) fn new(
        application: &ApplicationVariables,
        table: &BTreeMap<String, String>,
    ) -> Result<Self, VariableError> {
        let values = table
            .iter()
            .map(|(name, template)| Ok((name.clone(), application.expand(template)?)))
            .collect::<Result<_, VariableError>>()?;
        Ok(Self { values })
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// [`LookupError`]; what the application declares but the component's table does not is undefined.
    pub(crate) fn get(&self, name: &str) -> Result<&str, LookupError> {
        if !is_name(name) {
            return Err(LookupError::InvalidName);
        }
        self.values.get(name).map(String::as_str).ok_or(LookupError::Undefined)
    }
}

/// Spin's rule: lower-case letters and digits in words joined by single underscores, a letter first.
fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.split('_').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::{ApplicationVariables, ComponentVariables, LookupError, VariableError};
    use crate::manifest::VariableDeclaration;
    use std::collections::BTreeMap;

    fn declared() -> BTreeMap<String, VariableDeclaration> {
        let default = |value: &str| VariableDeclaration {
            default: Some(value.to_owned()),
            ..VariableDeclaration::default()
        };
        let required = VariableDeclaration { required: true, ..VariableDeclaration::default() };
        BTreeMap::from([
            ("host".to_owned(), default("http://a:1")),
            ("empty".to_owned(), default("")),
            ("token".to_owned(), required),
        ])
    }

    fn flag(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn resolved() -> ApplicationVariables {
        ApplicationVariables::resolve(&declared(), &[flag("token", "t")], |_| None).unwrap()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_the_environment_over_the_default() {
        let environment = |name: &str| (name == "SPIN_VARIABLE_HOST").then(|| "http://env:2".to_owned());
        let token = flag("token", "t");
        let by_default = ApplicationVariables::resolve(&declared(), std::slice::from_ref(&token), |_| None);
        let by_environment =
            ApplicationVariables::resolve(&declared(), std::slice::from_ref(&token), environment);
        let flags = [token, flag("host", "http://x:3"), flag("host", "http://flag:3")];
        let by_flag = ApplicationVariables::resolve(&declared(), &flags, environment);
        assert_eq!(by_default.unwrap().expand("{{host}}").unwrap(), "http://a:1");
        assert_eq!(by_environment.unwrap().expand("{{host}}").unwrap(), "http://env:2");
        assert_eq!(by_flag.unwrap().expand("{{host}}").unwrap(), "http://flag:3");
    }

    #[test]
    fn a_required_variable_without_value_is_named() {
        let error = ApplicationVariables::resolve(&declared(), &[], |_| None).err().unwrap();
        assert!(error.to_string().contains("`token`"));
        assert!(error.to_string().contains("SPIN_VARIABLE_TOKEN"));
    }

    #[test]
    fn a_flag_for_an_undeclared_variable_is_refused() {
        let flags = [flag("token", "t"), flag("tokne", "t")];
        let error = ApplicationVariables::resolve(&declared(), &flags, |_| None).err();
        assert_eq!(error, Some(VariableError::Undeclared("tokne".to_owned())));
    }

    #[test]
    fn templates_may_mix_text_and_variables() {
        let variables = resolved();
        assert_eq!(variables.expand("plain").unwrap(), "plain");
        assert_eq!(variables.expand("<{{ host }}|{{token}}>").unwrap(), "<http://a:1|t>");
        assert_eq!(variables.expand("{{ empty }}").unwrap(), "");
    }

    #[test]
    fn faulty_templates_are_refused() {
        let error = |template: &str| resolved().expand(template).unwrap_err();
        assert!(matches!(error("{{ other }}"), VariableError::UnknownInTemplate { .. }));
        assert!(matches!(error("{{ host }"), VariableError::Unclosed(_)));
        assert!(error("{{ host }").to_string().contains("`{{`"));
    }

    #[test]
    fn a_component_sees_only_what_its_table_declares() {
        let table = BTreeMap::from([("storage_1".to_owned(), "{{ host }}/".to_owned())]);
        let component = ComponentVariables::new(&resolved(), &table).unwrap();
        assert_eq!(component.get("storage_1"), Ok("http://a:1/"));
        assert_eq!(component.get("token"), Err(LookupError::Undefined));
        for invalid in ["", "Upper", "a-b", "1a", "a__b", "a_", "_a"] {
            assert_eq!(component.get(invalid), Err(LookupError::InvalidName), "{invalid:?}");
        }
    }
}
