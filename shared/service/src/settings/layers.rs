//! The four layers of settings, merged, each value traced back to the layer it came from.
//!
//! Values stay untyped here: text from the environment and flags, any TOML value from the file.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Value;

use super::{Error, Found, Origin, Problem, Raw, Setting};

/// The value of every setting that has one, and undeclared names.
type Merged = (BTreeMap<&'static str, Found>, Vec<Problem>);

/// The values of one layer, by the keys of the settings.
type Layer = BTreeMap<String, Raw>;

pub(super) fn merge(
    table: &[Setting],
    file: Option<&Path>,
    env: impl Fn(&str) -> Option<String>,
    flags: BTreeMap<String, String>,
) -> Result<Merged, Error> {
    let of_file = file.map(read_file).transpose()?.unwrap_or_default();
    let (of_flags, unknown_flags) = flag_layer(table, flags);
    let problems = unknown_keys(table, file, &of_file)
        .chain(unknown_flags)
        .collect();
    // The layer that wins comes first.
    let found = |setting: &Setting| {
        let of_env = || env(setting.env).filter(|value| !value.is_empty());
        let (raw, origin) = if let Some(raw) = of_flags.get(setting.key) {
            (raw.clone(), Origin::Flag(setting.flag()))
        } else if let Some(value) = of_env() {
            (
                Raw::Text(value),
                Origin::Environment(setting.env.to_owned()),
            )
        } else if let Some((raw, path)) = of_file.get(setting.key).zip(file) {
            (raw.clone(), Origin::File(path.to_owned()))
        } else {
            (Raw::Text(setting.default?.to_owned()), Origin::Default)
        };
        Some((setting.key, Found { raw, origin }))
    };
    Ok((table.iter().filter_map(found).collect(), problems))
}

/// Several services in one process may share a setting; it is listed once, where it appears first.
pub(super) fn without_repetition(table: &[Setting]) -> Vec<Setting> {
    let mut kept: Vec<Setting> = Vec::with_capacity(table.len());
    for setting in table {
        if !kept.iter().any(|earlier| earlier.key == setting.key) {
            kept.push(*setting);
        }
    }
    kept
}

fn flag_layer(table: &[Setting], flags: BTreeMap<String, String>) -> (Layer, Vec<Problem>) {
    let mut values = Layer::new();
    let mut unknown = Vec::new();
    for (name, value) in flags {
        let known = table
            .iter()
            .find(|setting| setting.key == name || setting.flag() == name);
        match known {
            Some(setting) => {
                values.insert(setting.key.to_owned(), Raw::Text(value));
            }
            None => unknown.push(Problem {
                key: name.clone(),
                value: None,
                origin: Some(Origin::Flag(name)),
                complaint: "there is no such setting".to_owned(),
            }),
        }
    }
    (values, unknown)
}

fn read_file(path: &Path) -> Result<Layer, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::ReadFile {
        path: path.to_owned(),
        source,
    })?;
    let values: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| Error::ParseFile {
            path: path.to_owned(),
            reason: without_excerpt(&error.to_string()),
        })?;
    Ok(values
        .into_iter()
        .map(|(key, value)| (key, raw(value)))
        .collect())
}

/// The parser quotes the faulty line between bars; it may hold a secret and is left out.
fn without_excerpt(message: &str) -> String {
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains('|'))
        .collect();
    lines.join(", ")
}

fn unknown_keys<'a>(
    table: &'a [Setting],
    file: Option<&'a Path>,
    values: &Layer,
) -> impl Iterator<Item = Problem> + use<'a> {
    let keys: Vec<String> = values.keys().cloned().collect();
    keys.into_iter()
        .filter(|key| !table.iter().any(|setting| setting.key == key))
        .map(move |key| Problem {
            key,
            value: None,
            origin: file.map(|path| Origin::File(path.to_owned())),
            complaint: "there is no such setting".to_owned(),
        })
}

fn raw(value: Value) -> Raw {
    match value {
        Value::Array(items) => items
            .into_iter()
            .map(scalar)
            .collect::<Option<Vec<String>>>()
            .map_or(Raw::Nested, Raw::List),
        other => scalar(other).map_or(Raw::Nested, Raw::Text),
    }
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Integer(whole) => Some(whole.to_string()),
        Value::Float(real) => Some(real.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}
