//! Wall-clock times on the wire: RFC 3339, UTC, milliseconds, `Z`.
//!
//! Inside a process a [`Timestamp`] is a count of milliseconds, so that it is cheap to compare and to
//! subtract; outside it is text, so that people and other languages can read it.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
///
/// Years 0 to 9999, which is what RFC 3339 can write, less the last 26 hours, which not every calendar can place; what
/// lies beyond counts as the nearest end, so that whatever is written can be read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 0000-01-01T00:00:00.000Z.
const EARLIEST: i64 = -62_167_219_200_000;
/// 9999-12-30T22:00:00.000Z.
const LATEST: i64 = 253_402_207_200_000;

/// A text that is no RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an RFC 3339 time such as 2026-01-31T12:00:00.000Z")]
pub struct ParseTimestampError {
    text: String,
}

impl Timestamp {
    /// The moment this many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(if millis < EARLIEST {
            EARLIEST
        } else if millis > LATEST {
            LATEST
        } else {
            millis
        })
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment moved forward by `duration`, saturating.
    pub fn after(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(duration)))
    }

    /// Time from `earlier` to this moment, zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => f.write_str("9999-12-30T22:00:00.000Z"),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Self::from_millis(time.as_millisecond())),
            Err(_) if is_in_the_last_hours(text) => Ok(Self(LATEST)),
            Err(_) => Err(ParseTimestampError {
                text: text.chars().take(64).collect(),
            }),
        }
    }
}

/// Whether this is a whole time that is only too late to be placed.
fn is_in_the_last_hours(text: &str) -> bool {
    jiff::fmt::temporal::Pieces::parse(text).is_ok_and(|pieces| {
        pieces.date().year() == 9999 && pieces.time().is_some() && pieces.offset().is_some()
    })
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "description": "RFC 3339, UTC, with milliseconds and Z"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_with_milliseconds_and_z_and_read_back() {
        let time = Timestamp::from_millis(1_704_067_200_005);
        assert_eq!(time.to_string(), "2024-01-01T00:00:00.005Z");
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert_eq!(
            Timestamp::from_millis(0).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
        assert_eq!(
            "2024-01-01T01:00:00+01:00"
                .parse::<Timestamp>()
                .unwrap()
                .as_millis(),
            1_704_067_200_000
        );
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn a_time_beyond_what_can_be_written_is_the_nearest_end() {
        for (text, written) in [
            ("9999-12-31T23:59:59Z", "9999-12-30T22:00:00.000Z"),
            ("9999-12-30T22:00:00.999Z", "9999-12-30T22:00:00.000Z"),
            ("0000-01-01T00:00:00+23:59", "0000-01-01T00:00:00.000Z"),
        ] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(time.to_string(), written);
            assert_eq!(written.parse::<Timestamp>().unwrap(), time);
        }
        for millis in [i64::MIN, i64::MAX] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
        assert!("9999-12-31".parse::<Timestamp>().is_err());
        assert!("9999-13-31T23:59:59Z".parse::<Timestamp>().is_err());
    }
}
