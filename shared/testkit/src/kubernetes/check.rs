//! The rules of the real API by which requests are checked.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Verb;

/// The parameters that each request may have.
fn parameters(verb: Verb) -> &'static [&'static str] {
    match verb {
        Verb::CreateJob => &["dryRun", "fieldManager", "fieldValidation", "pretty"],
        Verb::GetJob => &["resourceVersion", "pretty"],
        Verb::DeleteJob => &[
            "dryRun",
            "gracePeriodSeconds",
            "propagationPolicy",
            "pretty",
        ],
        Verb::ListPods => &[
            "labelSelector",
            "fieldSelector",
            "limit",
            "continue",
            "resourceVersion",
            "resourceVersionMatch",
            "timeoutSeconds",
            "pretty",
        ],
        Verb::WatchPods => &[
            "watch",
            "labelSelector",
            "fieldSelector",
            "resourceVersion",
            "timeoutSeconds",
            "allowWatchBookmarks",
        ],
        Verb::Log => &[
            "container",
            "follow",
            "previous",
            "sinceSeconds",
            "sinceTime",
            "timestamps",
            "tailLines",
            "limitBytes",
            "pretty",
        ],
    }
}

/// The problem with the parameters of a request.
pub(super) fn query(verb: Verb, query: &BTreeMap<String, String>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in query {
        let is_good = parameters(verb).contains(&name.as_str())
            && match name.as_str() {
                "labelSelector" => selector(value).is_some(),
                "resourceVersion" | "timeoutSeconds" => value.parse::<u64>().is_ok(),
                "watch" | "allowWatchBookmarks" | "follow" | "timestamps" => value == "true",
                "sinceTime" => value.parse::<jiff::Timestamp>().is_ok(),
                "container" => value == "program",
                _ => true,
            };
        if !is_good {
            problems.push(format!("{verb:?}: {name}={value}"));
        }
    }
    problems
}

/// The equalities of a selector.
pub(super) fn selector(text: &str) -> Option<Vec<(&str, &str)>> {
    let parts = text.split(',').map(|part| part.split_once('='));
    let parts: Option<Vec<_>> = parts.collect();
    parts.filter(|parts| {
        parts
            .iter()
            .all(|(key, value)| is_label_key(key) && is_label_value(value))
    })
}

/// An optional DNS subdomain and a slash, and a name of at most 63 characters.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').unwrap_or(("a", key));
    !name.is_empty()
        && is_label_value(name)
        && prefix.split('.').all(is_dns_label)
        && prefix.len() <= 253
}

/// At most 63 letters, digits, `-`, `_` and `.`, the first and last of them a letter or digit; or nothing.
/// (Kubernetes documentation, "Labels and Selectors", syntax and character set.)
fn is_label_value(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 63
        && text.bytes().all(is_inner)
        && ends
            .into_iter()
            .flatten()
            .all(|byte| byte.is_ascii_alphanumeric())
}

fn is_dns_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| is_plain(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Reads a body into its type. Fails when a field of it is lost, so that it does not exist.
pub(super) fn body<T: DeserializeOwned + Serialize>(sent: &Value) -> Result<T, String> {
    let read: T = serde_json::from_value(sent.clone()).map_err(|error| error.to_string())?;
    let mut written = serde_json::to_value(&read).map_err(|error| error.to_string())?;
    // The types always write what they are, which the API does not need in every body.
    for name in ["apiVersion", "kind"] {
        if sent.get(name).is_none()
            && let Some(fields) = written.as_object_mut()
        {
            fields.remove(name);
        }
    }
    if written == *sent {
        return Ok(read);
    }
    Err(format!("fields were lost: {sent} became {written}"))
}

/// What the API would refuse about a new Job.
pub(super) fn job(job: &Job) -> Vec<String> {
    let mut problems = metadata(&job.metadata);
    if !is_dns_label(job.metadata.name.as_deref().unwrap_or_default()) {
        problems.push(format!("the name {:?}", job.metadata.name));
    }
    let Some(spec) = &job.spec else {
        return vec!["no spec".to_owned()];
    };
    problems.extend(spec.template.metadata.iter().flat_map(metadata));
    let Some(pod) = &spec.template.spec else {
        return vec!["no pod".to_owned()];
    };
    if !matches!(pod.restart_policy.as_deref(), Some("Never" | "OnFailure")) {
        problems.push("a Job's pod restarts Never or OnFailure".to_owned());
    }
    let volumes: Vec<_> = pod
        .volumes
        .iter()
        .flatten()
        .map(|volume| volume.name.as_str())
        .collect();
    for container in &pod.containers {
        let mounts = container.volume_mounts.iter().flatten();
        let unknown = mounts.filter(|mount| !volumes.contains(&mount.name.as_str()));
        problems.extend(unknown.map(|mount| format!("no volume {}", mount.name)));
        let variables = container.env.iter().flatten();
        let bad =
            variables.filter(|variable| variable.name.is_empty() || variable.name.contains('='));
        problems.extend(bad.map(|variable| format!("a variable called {:?}", variable.name)));
        if container.image.as_deref().unwrap_or_default().is_empty()
            || !is_dns_label(&container.name)
        {
            problems.push("a container has a name and an image".to_owned());
        }
    }
    problems
}

fn metadata(metadata: &ObjectMeta) -> Vec<String> {
    let labels = metadata.labels.iter().flatten();
    let bad = labels.filter(|(key, value)| !is_label_key(key) || !is_label_value(value));
    let mut problems: Vec<_> = bad
        .map(|(key, value)| format!("label {key}={value}"))
        .collect();
    let annotations = metadata.annotations.iter().flatten();
    let bad = annotations.filter(|(key, _)| !is_label_key(key));
    problems.extend(bad.map(|(key, _)| format!("annotation {key}")));
    problems
}
