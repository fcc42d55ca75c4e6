//! Tables and times for people.

use comfy_table::{ContentArrangement, Table, presets};
use quintet_contract::time::Timestamp;
use serde_json::Value;

/// A table without frames that fits the terminal.
pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.iter().map(|name| name.to_uppercase()));
    table
}

/// A field as text; a dash for what is not there.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Names, separated by commas.
pub(crate) fn names(list: &[Value]) -> String {
    list.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// How long ago, roughly.
pub(crate) fn age(at: &Value, now: Timestamp) -> String {
    let Some(at) = at.as_str().and_then(|at| at.parse::<Timestamp>().ok()) else {
        return "-".to_owned();
    };
    match now.since(at).as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// What a job does, in a few words.
pub(crate) fn what(job: &Value) -> String {
    if let Some(code) = job["error"]["code"].as_str() {
        return format!("{code}: {}", text(&job["error"]["message"]));
    }
    if let Some(template) = job["templateId"].as_str() {
        return template.to_owned();
    }
    let config = &job["inlineConfig"];
    let short = match config["command"].as_array() {
        Some(command) => command.iter().map(text).collect::<Vec<_>>().join(" "),
        None => config["streamUrl"]
            .as_str()
            .map_or_else(|| config.to_string(), str::to_owned),
    };
    match short.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &short[..end]),
        None => short,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_printed_in_a_few_words() {
        assert_eq!(
            what(&json!({"inlineConfig": {"command": ["echo", "hi"]}})),
            "echo hi"
        );
        assert_eq!(
            what(&json!({"error": {"code": "LOST", "message": "gone"}})),
            "LOST: gone"
        );
        assert_eq!(
            what(&json!({"inlineConfig": {"command": ["x".repeat(80)]}}))
                .chars()
                .count(),
            61
        );
        let now = Timestamp::from_millis(7_200_000);
        assert_eq!(age(&json!("1970-01-01T00:00:00.000Z"), now), "2 h");
        assert_eq!(age(&Value::Null, now), "-");
    }
}
