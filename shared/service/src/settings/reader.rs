//! Typed access to settings that collects what is wrong instead of stopping.
//!
//! A value that cannot be had is replaced by a placeholder, so that the caller can continue and build the
//! whole `Config`; [`Reader::finish`] then hands the `Config` out only if there was no problem.
//! A setting gets at most one complaint: checks on a placeholder would be noise.

use std::any::type_name;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::{Error, Problem, Raw, Secrecy, Settings};

/// Reads typed values and remembers every problem; end it with [`Reader::finish`].
#[must_use = "problems are reported by finish"]
pub struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            problems: settings.problems.clone(),
        }
    }

    /// A text that must be there; it may be empty.
    pub fn text(&mut self, key: &str) -> String {
        self.required(key).unwrap_or_default()
    }

    /// A text that may be absent; an empty one counts as absent.
    pub fn optional(&mut self, key: &str) -> Option<String> {
        self.given(key).filter(|text| !text.is_empty())
    }

    /// A value of any type that can be parsed from text: numbers, enums, addresses.
    pub fn parse<T>(&mut self, key: &str) -> T
    where
        T: FromStr + Default,
        T::Err: Display,
    {
        self.parse_or(key, T::default())
    }

    /// As [`Reader::parse`], for types that have no default of their own to stand in.
    pub fn parse_or<T>(&mut self, key: &str, placeholder: T) -> T
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(text) = self.required(key) else {
            return placeholder;
        };
        self.parsed(key, &text).unwrap_or(placeholder)
    }

    /// As [`Reader::parse`], for a value that may be absent.
    pub fn parse_optional<T>(&mut self, key: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.optional(key)?;
        self.parsed(key, &text)
    }

    /// A yes or no: `true`, `yes`, `on`, `1` and their opposites. Absent means no.
    pub fn boolean(&mut self, key: &str) -> bool {
        let Some(text) = self.optional(key) else {
            return false;
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => true,
            "false" | "no" | "off" | "0" => false,
            _ => {
                self.complain(key, "expected true or false");
                false
            }
        }
    }

    /// A list: an array in the file, or texts separated by commas anywhere. Absent means empty.
    pub fn list(&mut self, key: &str) -> Vec<String> {
        match self.raw(key) {
            Some(Raw::List(items)) => items,
            Some(Raw::Text(text)) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect(),
            Some(Raw::Nested) => {
                self.complain(key, "expected a list of plain values, not a table");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// A list whose entries all parse as `T`; the first entry that does not is the problem.
    pub fn parse_list<T>(&mut self, key: &str) -> Vec<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let items = self.list(key);
        let mut parsed = Vec::with_capacity(items.len());
        for item in &items {
            match self.parsed(key, item) {
                Some(value) => parsed.push(value),
                None => return Vec::new(),
            }
        }
        parsed
    }

    /// A time given as a whole number of milliseconds, for keys that end in `_ms`.
    pub fn millis(&mut self, key: &str) -> Duration {
        let Some(text) = self.required(key) else {
            return Duration::ZERO;
        };
        match text.trim().parse() {
            Ok(millis) => Duration::from_millis(millis),
            Err(_) => {
                self.complain(key, "expected a whole number of milliseconds");
                Duration::ZERO
            }
        }
    }

    /// A time with its unit, such as `7days` or `1h 30m`.
    pub fn duration(&mut self, key: &str) -> Duration {
        let Some(text) = self.required(key) else {
            return Duration::ZERO;
        };
        match humantime::parse_duration(text.trim()) {
            Ok(duration) => duration,
            Err(_) => {
                self.complain(
                    key,
                    "expected a time with its unit, such as 250ms, 10s or 7days",
                );
                Duration::ZERO
            }
        }
    }

    /// Records `sentence` as the problem of `key` unless `holds`; silent when `key` has one already.
    pub fn check(&mut self, key: &str, holds: bool, sentence: &str) {
        if !holds {
            self.complain(key, sentence);
        }
    }

    /// Hands out `config` if nothing was wrong, else everything that was.
    ///
    /// # Errors
    /// [`Error`] with everything that is wrong, if anything is.
    pub fn finish<T>(self, config: T) -> Result<T, Error> {
        if self.problems.is_empty() {
            return Ok(config);
        }
        Err(Error::Invalid {
            problems: self.problems,
        })
    }

    fn raw(&mut self, key: &str) -> Option<Raw> {
        if self.settings.setting(key).is_none() {
            self.complain(
                key,
                "the program reads this setting but does not declare it",
            );
            return None;
        }
        self.settings.values.get(key).map(|found| found.raw.clone())
    }

    fn given(&mut self, key: &str) -> Option<String> {
        match self.raw(key)? {
            Raw::Text(text) => Some(text),
            Raw::List(_) => {
                self.complain(key, "expected one value, not a list");
                None
            }
            Raw::Nested => {
                self.complain(key, "expected a plain value, not a table");
                None
            }
        }
    }

    fn required(&mut self, key: &str) -> Option<String> {
        let given = self.given(key);
        if given.is_none()
            && let Some(setting) = self.settings.setting(key)
        {
            let sentence = format!(
                "is not set; give it in the file, as {} in the environment or as --{}",
                setting.env,
                setting.flag()
            );
            self.complain(key, &sentence);
        }
        given
    }

    fn parsed<T>(&mut self, key: &str, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        match text.trim().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let sentence = self.expected::<T>(key, &error);
                self.complain(key, &sentence);
                None
            }
        }
    }

    /// Numbers name their range; other types describe themselves, but may quote the value.
    fn expected<T>(&self, key: &str, error: &dyn Display) -> String {
        let secret = self
            .settings
            .setting(key)
            .is_some_and(|setting| !matches!(setting.secret, Secrecy::Public));
        match range::<T>() {
            Some(range) => format!("expected {range}"),
            None if secret => "is not in the expected form".to_owned(),
            None => error.to_string(),
        }
    }

    fn complain(&mut self, key: &str, sentence: &str) {
        if self.problems.iter().any(|problem| problem.key == key) {
            return;
        }
        self.problems.push(self.settings.problem(key, sentence));
    }
}

/// Names of primitive types are stable; a type that is missed here only gets a plainer sentence.
fn range<T>() -> Option<String> {
    fn whole(min: impl Display, max: impl Display) -> Option<String> {
        Some(format!("a whole number from {min} to {max}"))
    }
    match type_name::<T>() {
        "u8" => whole(u8::MIN, u8::MAX),
        "u16" => whole(u16::MIN, u16::MAX),
        "u32" => whole(u32::MIN, u32::MAX),
        "u64" => whole(u64::MIN, u64::MAX),
        "usize" => whole(usize::MIN, usize::MAX),
        "i32" => whole(i32::MIN, i32::MAX),
        "i64" => whole(i64::MIN, i64::MAX),
        "f32" | "f64" => Some("a number".to_owned()),
        _ => None,
    }
}
