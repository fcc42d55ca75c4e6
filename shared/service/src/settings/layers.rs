//! The four layers of settings, merged, each value traced back to the layer it came from.
//!
//! Values stay untyped here: text from the environment and flags, whatever TOML says from the file.

use std::collections::BTreeMap;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Error, Found, Origin, Problem, Raw, Setting};

// Names of the layers, by which a merged value is traced back to its origin.
const DEFAULT: &str = "default";
const FILE: &str = "file";
const ENVIRONMENT: &str = "environment";
const FLAG: &str = "flag";

struct Layer {
    kind: &'static str,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.kind)
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// The value of every setting that has one, and what nobody declared.
type Merged = (BTreeMap<&'static str, Found>, Vec<Problem>);

pub(super) fn merge(
    table: &[Setting],
    file: Option<&Path>,
    env: impl Fn(&str) -> Option<String>,
    flags: BTreeMap<String, String>,
) -> Result<Merged, Error> {
    let file_values = file.map(read_file).transpose()?.unwrap_or_default();
    let (flag_values, unknown_flags) = flag_layer(table, flags);
    let problems = unknown_keys(table, file, &file_values)
        .chain(unknown_flags)
        .collect();

    let figment = Figment::new()
        .merge(default_layer(table))
        .merge(Layer {
            kind: FILE,
            values: file_values,
        })
        .merge(environment_layer(table, env))
        .merge(flag_values);
    let values = table
        .iter()
        .filter_map(|setting| Some((setting.key, found(&figment, setting, file)?)))
        .collect();
    Ok((values, problems))
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

fn default_layer(table: &[Setting]) -> Layer {
    let values = table
        .iter()
        .filter_map(|setting| Some((setting.key.to_owned(), Value::from(setting.default?))))
        .collect();
    Layer {
        kind: DEFAULT,
        values,
    }
}

fn environment_layer(table: &[Setting], env: impl Fn(&str) -> Option<String>) -> Layer {
    let values = table
        .iter()
        .filter_map(|setting| {
            let value = env(setting.env).filter(|value| !value.is_empty())?;
            Some((setting.key.to_owned(), Value::from(value)))
        })
        .collect();
    Layer {
        kind: ENVIRONMENT,
        values,
    }
}

fn flag_layer(table: &[Setting], flags: BTreeMap<String, String>) -> (Layer, Vec<Problem>) {
    let mut values = Dict::new();
    let mut unknown = Vec::new();
    for (name, value) in flags {
        let known = table
            .iter()
            .find(|setting| setting.key == name || setting.flag() == name);
        match known {
            Some(setting) => {
                values.insert(setting.key.to_owned(), Value::from(value));
            }
            None => unknown.push(Problem {
                key: name.clone(),
                value: None,
                origin: Some(Origin::Flag(name)),
                complaint: "there is no such setting".to_owned(),
            }),
        }
    }
    (Layer { kind: FLAG, values }, unknown)
}

fn read_file(path: &Path) -> Result<Dict, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::ReadFile {
        path: path.to_owned(),
        source,
    })?;
    let mut data = Toml::string(&text)
        .data()
        .map_err(|error| Error::ParseFile {
            path: path.to_owned(),
            reason: without_excerpt(&error.to_string()),
        })?;
    Ok(data.remove(&Profile::Default).unwrap_or_default())
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
    values: &Dict,
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

fn found(figment: &Figment, setting: &Setting, file: Option<&Path>) -> Option<Found> {
    let value = figment.find_value(setting.key).ok()?;
    let layer = figment
        .get_metadata(value.tag())
        .map(|metadata| metadata.name.as_ref());
    let origin = match (layer, file) {
        (Some(FILE), Some(path)) => Origin::File(path.to_owned()),
        (Some(ENVIRONMENT), _) => Origin::Environment(setting.env.to_owned()),
        (Some(FLAG), _) => Origin::Flag(setting.flag()),
        _ => Origin::Default,
    };
    Some(Found {
        raw: raw(value),
        origin,
    })
}

fn raw(value: Value) -> Raw {
    match value {
        Value::Array(_, items) => items
            .into_iter()
            .map(scalar)
            .collect::<Option<Vec<String>>>()
            .map_or(Raw::Nested, Raw::List),
        other => scalar(other).map_or(Raw::Nested, Raw::Text),
    }
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text),
        Value::Char(_, one) => Some(one.to_string()),
        Value::Bool(_, flag) => Some(flag.to_string()),
        Value::Num(_, number) => number
            .to_i128()
            .map(|whole| whole.to_string())
            .or_else(|| number.to_u128().map(|whole| whole.to_string()))
            .or_else(|| number.to_f64().map(|real| real.to_string())),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}
