//! Environment filter: which variables of the worker's environment its child processes do not inherit.
//!
//! A worker is configured by variables, some of which are secrets: passwords, keys, tokens. What it runs is written by its
//! users, and must not find them. Variables that a job, a node or a managed process sets itself are its own and always pass.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::process::Command;

/// The variables that child processes do not inherit; the default withholds none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentFilter {
    withheld: BTreeSet<String>,
    prefixes: BTreeSet<String>,
    passed: BTreeSet<String>,
}

impl EnvironmentFilter {
    /// Withholds these variables; a name that ends with `*` stands for all that begin with the rest.
    pub fn withhold(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut filter = Self::default();
        for name in names.into_iter().map(Into::into) {
            match name.strip_suffix('*') {
                Some(prefix) => filter.prefixes.insert(prefix.to_owned()),
                None => filter.withheld.insert(name),
            };
        }
        filter
    }

    /// Passes these variables on all the same.
    #[must_use]
    pub fn pass(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.passed.extend(names.into_iter().map(Into::into));
        self
    }

    /// Whether a child process does not inherit a variable of this name.
    pub fn withholds(&self, name: &OsStr) -> bool {
        // Every name that is withheld is UTF-8, so one that is not is none of them; a prefix is compared by bytes.
        let bytes = name.as_encoded_bytes();
        let is_named =
            |names: &BTreeSet<String>| name.to_str().is_some_and(|name| names.contains(name));
        let begins = |prefix: &String| bytes.starts_with(prefix.as_bytes());
        !is_named(&self.passed) && (is_named(&self.withheld) || self.prefixes.iter().any(begins))
    }

    /// Removes what is withheld from the environment that a command inherits; what the command sets itself stays.
    pub(super) fn apply(&self, command: &mut Command) {
        let own: BTreeSet<OsString> = command
            .get_envs()
            .map(|(name, _)| name.to_owned())
            .collect();
        for (name, _) in std::env::vars_os() {
            if self.withholds(&name) && !own.contains(&name) {
                command.env_remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prefixes_are_withheld_unless_they_are_passed() {
        let filter =
            EnvironmentFilter::withhold(["NATS_PASSWORD", "HOST", "OTEL_*"]).pass(["HOST"]);
        for name in ["NATS_PASSWORD", "OTEL_EXPORTER_OTLP_HEADERS"] {
            assert!(filter.withholds(OsStr::new(name)), "{name}");
        }
        for name in ["HOST", "HOSTNAME", "PATH", "NATS_PASSWORD_FILE", "XOTEL_"] {
            assert!(!filter.withholds(OsStr::new(name)), "{name}");
        }
        assert!(!EnvironmentFilter::default().withholds(OsStr::new("NATS_PASSWORD")));
    }

    #[test]
    fn a_command_keeps_what_it_sets_itself() {
        let inherited = std::env::vars_os().map(|(name, _)| name.into_string().unwrap());
        let names: Vec<String> = inherited.collect();
        let (kept, removed) = names.split_first().expect("a test has an environment");
        let mut command = Command::new("true");
        command.env(kept, "its own");
        EnvironmentFilter::withhold(&names).apply(&mut command);
        for (name, value) in command.get_envs() {
            let wanted = (name == OsStr::new(kept)).then_some(OsStr::new("its own"));
            assert_eq!(value, wanted, "{name:?}");
        }
        assert_eq!(command.get_envs().count(), removed.len() + 1);
    }
}
