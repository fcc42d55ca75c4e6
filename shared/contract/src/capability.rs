//! Capabilities of an agent and requirements of a job: the two sides of placement.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::JsonObject;

/// Image heights in ascending order; an agent that can do one can do the lower ones.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Resolution {
    /// 640 × 360.
    #[serde(rename = "360p")]
    P360,
    /// 854 × 480.
    #[serde(rename = "480p")]
    P480,
    /// 1280 × 720.
    #[serde(rename = "720p")]
    P720,
    /// 1920 × 1080.
    #[serde(rename = "1080p")]
    P1080,
    /// 2560 × 1440.
    #[serde(rename = "1440p")]
    P1440,
    /// 3840 × 2160.
    #[serde(rename = "2160p")]
    P2160,
}

impl std::fmt::Display for Resolution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::P360 => "360p",
            Self::P480 => "480p",
            Self::P720 => "720p",
            Self::P1080 => "1080p",
            Self::P1440 => "1440p",
            Self::P2160 => "2160p",
        })
    }
}

/// What Quintet reads of an agent's announcement; the announcement itself is kept and shown as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// How many jobs at once.
    #[serde(default = "one_slot")]
    pub slots: u32,
    /// The largest image it can handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_resolution: Option<Resolution>,
    /// Labels that requirements match by equality.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Tags that requirements match by containment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether it stops jobs on its own when it has lost the bus, so that they can be restarted elsewhere.
    #[serde(default)]
    pub self_fence: bool,
    /// Names of the executors it has; empty when it is not announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub executors: Vec<String>,
    /// Live commands it understands; empty when it is not announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

fn one_slot() -> u32 {
    1
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            slots: one_slot(),
            max_resolution: None,
            labels: BTreeMap::new(),
            tags: Vec::new(),
            self_fence: false,
            executors: Vec::new(),
            commands: Vec::new(),
        }
    }
}

impl Capabilities {
    /// Reads what an agent announced, field by field: a field of an unexpected type counts as not announced,
    /// since third-party agents must not be turned away for what we do not need.
    pub fn read(announced: &JsonObject) -> Self {
        fn field<T: serde::de::DeserializeOwned>(announced: &JsonObject, name: &str) -> Option<T> {
            announced
                .get(name)
                .and_then(|value| T::deserialize(value).ok())
        }
        Self {
            slots: field(announced, "slots").unwrap_or_else(one_slot),
            max_resolution: field(announced, "maxResolution"),
            labels: field(announced, "labels").unwrap_or_default(),
            tags: field(announced, "tags").unwrap_or_default(),
            self_fence: field(announced, "selfFence").unwrap_or_default(),
            executors: field(announced, "executors").unwrap_or_default(),
            commands: field(announced, "commands").unwrap_or_default(),
        }
    }

    /// The announcement as an object, the inverse of [`Capabilities::read`].
    pub fn to_object(&self) -> JsonObject {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(object)) => object,
            Ok(_) | Err(_) => JsonObject::new(),
        }
    }
}

/// What a job asks of its agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirements {
    /// The agent must handle at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_resolution: Option<Resolution>,
    /// The agent must carry these labels with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The agent must carry all of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The agent must promise to fence itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fenced: bool,
}

impl Requirements {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// The first requirement that `capabilities` does not meet, as a phrase for people; `None` when all are met.
    pub fn unmet_by(&self, capabilities: &Capabilities) -> Option<String> {
        if let Some(wanted) = self.max_resolution {
            match capabilities.max_resolution {
                Some(offered) if offered >= wanted => {}
                Some(offered) => {
                    return Some(format!(
                        "maxResolution {wanted} required, agent has {offered}"
                    ));
                }
                None => return Some(format!("maxResolution {wanted} required, agent names none")),
            }
        }
        for (label, wanted) in &self.labels {
            match capabilities.labels.get(label) {
                Some(value) if value == wanted => {}
                Some(value) => {
                    return Some(format!(
                        "label {label}={wanted} required, agent has {label}={value}"
                    ));
                }
                None => {
                    return Some(format!(
                        "label {label}={wanted} required, agent has no such label"
                    ));
                }
            }
        }
        for tag in &self.tags {
            if !capabilities.tags.contains(tag) {
                return Some(format!("tag {tag} required"));
            }
        }
        if self.fenced && !capabilities.self_fence {
            return Some("fenced required, agent does not promise selfFence".to_owned());
        }
        None
    }

    /// Both sets of requirements together; where they name the same label or resolution, the stricter or `other` decides.
    #[must_use]
    pub fn and(&self, other: &Requirements) -> Requirements {
        let mut both = self.clone();
        both.max_resolution = both.max_resolution.max(other.max_resolution);
        both.labels.extend(other.labels.clone());
        for tag in &other.tags {
            if !both.tags.contains(tag) {
                both.tags.push(tag.clone());
            }
        }
        both.fenced |= other.fenced;
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_met_or_named() {
        let agent = Capabilities {
            max_resolution: Some(Resolution::P1080),
            labels: [("zone".to_owned(), "eu".to_owned())].into(),
            tags: vec!["gpu".to_owned()],
            ..Capabilities::default()
        };
        let wants = |json: &str| {
            serde_json::from_str::<Requirements>(json)
                .unwrap()
                .unmet_by(&agent)
        };
        assert_eq!(wants("{}"), None);
        assert_eq!(
            wants(r#"{"maxResolution":"720p","labels":{"zone":"eu"},"tags":["gpu"]}"#),
            None
        );
        assert_eq!(
            wants(r#"{"maxResolution":"2160p"}"#).unwrap(),
            "maxResolution 2160p required, agent has 1080p"
        );
        assert_eq!(
            wants(r#"{"labels":{"zone":"us"}}"#).unwrap(),
            "label zone=us required, agent has zone=eu"
        );
        assert_eq!(wants(r#"{"tags":["tpu"]}"#).unwrap(), "tag tpu required");
        assert_eq!(
            wants(r#"{"fenced":true}"#).unwrap(),
            "fenced required, agent does not promise selfFence"
        );
    }
}
