//! Settings as data: a service declares a table, a process loads it, a reader turns it into a `Config`.
//!
//! Layers, the later ones winning: defaults, TOML file, environment, flags. Every value remembers where
//! it came from, so that a complaint about it names the place to correct. Nothing stops at the first
//! mistake: unknown keys, values that do not parse and failed checks are reported together by
//! [`Reader::finish`]. An empty environment variable counts as absent.

mod layers;
mod reader;
mod render;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use reader::Reader;
pub use render::markdown_table;

const MASK: &str = "***";

/// One setting: its names, its default and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name in the configuration file; the flag is the same with dashes.
    pub key: &'static str,
    /// The name of the environment variable.
    pub env: &'static str,
    /// The default; `None` means it may be absent, or must be given.
    pub default: Option<&'static str>,
    /// One sentence for people.
    pub help: &'static str,
    /// Whether its value may be shown.
    pub secret: Secrecy,
}

/// Whether a value may be shown in logs, errors and printed configuration.
#[derive(Clone, Copy, Debug)]
pub enum Secrecy {
    /// Anyone may see it.
    Public,
    /// It is shown as this function gives it, such as a URL without its password.
    Redacted(fn(&str) -> String),
    /// It is shown as stars.
    Secret,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of settings.
    Default,
    /// The configuration file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// The command line flag of this name, without dashes in front.
    Flag(String),
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as named in the file.
    pub key: String,
    /// What was given, masked when it is a secret; `None` when nothing was.
    pub value: Option<String>,
    /// Where that came from; `None` when nothing was given.
    pub origin: Option<Origin>,
    /// What is wrong, or what is expected instead.
    pub complaint: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    ReadFile {
        /// The file that was named.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("the configuration file {} is not valid TOML: {reason}", path.display())]
    ParseFile {
        /// The file that was named.
        path: PathBuf,
        /// The parser's message, without the line itself, which may hold a secret.
        reason: String,
    },
    /// Settings are unknown, missing or wrong.
    #[error("{}", listed(problems))]
    Invalid {
        /// Everything that is wrong, at least one.
        problems: Vec<Problem>,
    },
}

/// All values of a table of settings, layered, with their origins.
#[derive(Clone)]
pub struct Settings {
    table: Vec<Setting>,
    values: BTreeMap<&'static str, Found>,
    problems: Vec<Problem>,
}

#[derive(Clone)]
struct Found {
    raw: Raw,
    origin: Origin,
}

/// A value before it is parsed as a type.
#[derive(Clone)]
enum Raw {
    Text(String),
    List(Vec<String>),
    /// A table, or a list that holds one: no setting has this form.
    Nested,
}

impl Setting {
    /// The name of the command line flag, without dashes in front.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    fn shown(&self, value: String) -> String {
        match self.secret {
            Secrecy::Public => value,
            Secrecy::Redacted(redact) => redact(&value),
            Secrecy::Secret => MASK.to_owned(),
        }
    }
}

/// The value of an environment variable of this process, for [`Settings::load`].
pub fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Settings {
    /// Layers defaults, `file`, `env` and `flags` over `table`.
    ///
    /// `flags` may be keyed by flag name or by setting key. Only an unreadable or malformed file fails
    /// here; everything else waits for [`Reader::finish`], to be reported together.
    ///
    /// # Errors
    /// [`Error`] when the file cannot be read, or has keys that no setting has.
    pub fn load(
        table: &[Setting],
        file: Option<&Path>,
        env: impl Fn(&str) -> Option<String>,
        flags: BTreeMap<String, String>,
    ) -> Result<Settings, Error> {
        let table = layers::without_repetition(table);
        let (values, problems) = layers::merge(&table, file, env, flags)?;
        Ok(Settings {
            table,
            values,
            problems,
        })
    }

    /// Keeps only the settings of `table`: a command prints and reads its own, while a file may name all that there are.
    pub fn limited_to(mut self, table: &[Setting]) -> Self {
        self.table
            .retain(|setting| table.iter().any(|kept| kept.key == setting.key));
        self
    }

    /// Starts reading typed values.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self)
    }

    /// Where the value of `key` came from, `None` when it has none.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|found| &found.origin)
    }

    fn setting(&self, key: &str) -> Option<&Setting> {
        self.table.iter().find(|setting| setting.key == key)
    }

    fn problem(&self, key: &str, complaint: impl Into<String>) -> Problem {
        let found = self.values.get(key);
        let value = found.map(|found| match self.setting(key) {
            Some(setting) => setting.shown(found.raw.to_string()),
            None => found.raw.to_string(),
        });
        Problem {
            key: key.to_owned(),
            value,
            origin: found.map(|found| found.origin.clone()),
            complaint: complaint.into(),
        }
    }
}

/// The printed configuration, secrets masked: safe to log.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.print_config())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value:?}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.complaint)
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) => f.write_str(text),
            Raw::List(items) => f.write_str(&items.join(",")),
            Raw::Nested => f.write_str("a table"),
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("\n  - {problem}"))
        .collect();
    format!(
        "the configuration has {} problem(s):{}",
        problems.len(),
        lines.concat()
    )
}

#[cfg(test)]
mod tests;
