//! Settings for people: the effective configuration as commented TOML, and the table of a README.
//!
//! The printed configuration is itself a valid configuration file, except that secrets are masked.

use std::fmt::Write;

use super::{MASK, Raw, Secrecy, Setting, Settings};

impl Settings {
    /// Every setting with its value and origin, as TOML with comments, secrets masked.
    pub fn print_config(&self) -> String {
        let mut out = String::new();
        for setting in &self.table {
            out.push_str(&self.entry(setting));
            out.push('\n');
        }
        out
    }

    fn entry(&self, setting: &Setting) -> String {
        let help = setting.help.replace('\n', " ");
        match self.values.get(setting.key) {
            Some(found) => {
                let value = match setting.secret {
                    Secrecy::Public => toml_value(&found.raw),
                    Secrecy::Redacted(redact) => quoted(&redact(&found.raw.to_string())),
                    Secrecy::Secret => quoted(MASK),
                };
                format!(
                    "# {help}\n# from: {}\n{} = {value}\n",
                    found.origin, setting.key
                )
            }
            None => format!("# {help}\n# not set\n# {} =\n", setting.key),
        }
    }
}

/// The settings as a Markdown table, one row each, in the order of the table.
pub fn markdown_table(table: &[Setting]) -> String {
    let mut out = String::from(
        "| setting | environment | flag | default | meaning |\n|---|---|---|---|---|\n",
    );
    for setting in table {
        let default = match setting.default {
            Some("") | None => "-".to_owned(),
            Some(text) => format!("`{}`", cell(text)),
        };
        let row = format!(
            "| `{}` | `{}` | `--{}` | {default} | {} |\n",
            setting.key,
            setting.env,
            setting.flag(),
            cell(setting.help)
        );
        out.push_str(&row);
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn toml_value(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) => toml_scalar(text),
        Raw::List(items) => {
            let items: Vec<String> = items.iter().map(|item| toml_scalar(item)).collect();
            format!("[{}]", items.join(", "))
        }
        Raw::Nested => "{}".to_owned(),
    }
}

/// Bare when it is a number or a truth value that reads back as the same text, else quoted.
fn toml_scalar(text: &str) -> String {
    let number = text
        .parse::<i64>()
        .is_ok_and(|number| number.to_string() == text);
    if number || text == "true" || text == "false" {
        return text.to_owned();
    }
    quoted(text)
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}
