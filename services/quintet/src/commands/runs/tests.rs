//! The rendering of runs, word for word.

use quintet_contract::plan::PlanView;
use quintet_contract::run::Run;
use quintet_contract::time::Timestamp;
use serde_json::{Value, json};

use super::follow::{event_of, moment_of};
use super::render::{Size, render};
use super::view::View;
use super::{plan, watch};
use crate::client::events::Message;
use crate::client::output::terminal::plain;

const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// The moment so many milliseconds after the run was created.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + ms)
}

fn run(plan: Value) -> View {
    let run: Run = serde_json::from_value(json!({
        "id": RUN, "name": "video", "status": "pending", "createdAt": at(0), "plan": plan,
    }))
    .unwrap();
    View::of(run)
}

fn video() -> View {
    run(json!({
        "nodes": [
            {"id": "fetch", "kind": "command", "command": ["x"]},
            {"id": "small", "kind": "command", "command": ["x"], "needs": ["fetch"]},
            {"id": "large", "kind": "command", "command": ["x"], "needs": ["fetch"]},
            {"id": "review", "kind": "gate", "needs": ["small", "large"]},
            {"id": "join", "kind": "command", "command": ["x"]},
        ],
        "edges": [{"from": "review", "to": "join"}],
    }))
}

fn message(ms: i64, event: &str, mut data: Value) -> Message {
    data["runId"] = json!(RUN);
    Message {
        event: event.to_owned(),
        id: format!("{}_{ms}", at(ms)),
        data,
    }
}

fn node(ms: i64, id: &str, status: &str, attempt: u32) -> Message {
    message(
        ms,
        "node",
        json!({"nodeId": id, "status": status, "attempt": attempt}),
    )
}

fn apply(view: &mut View, messages: &[Message]) {
    for message in messages {
        let event = event_of(message).unwrap_or_else(|| panic!("no event: {message:?}"));
        view.apply(moment_of(message), event);
    }
}

fn drawn(view: &View, ms: i64, columns: u16, rows: Option<u16>) -> String {
    let lines = render(view, at(ms), Size { columns, rows });
    if let Some(rows) = rows {
        assert!(lines.len() < usize::from(rows), "{} lines", lines.len());
    }
    let lines: Vec<String> = lines.iter().map(|line| plain(line, columns)).collect();
    lines.join("\n")
}

/// What has happened when both renditions are under way, one of them for the second time.
fn under_way() -> Vec<Message> {
    let checkpoint = json!({"id": RUN, "ts": at(4_000), "type": "segment", "data": {"done": 3}, "nodeId": "large"});
    let failed = json!({"nodeId": "small", "status": "waiting", "attempt": 1, "error": "killed by signal 9"});
    vec![
        message(10, "status", json!({"status": "running"})),
        node(10, "fetch", "queued", 0),
        node(20, "fetch", "running", 1),
        node(1_220, "fetch", "succeeded", 1),
        node(1_300, "small", "running", 1),
        node(1_310, "large", "running", 1),
        message(2_000, "node", failed),
        node(3_000, "small", "running", 2),
        message(
            3_500,
            "progress",
            json!({"nodeId": "small", "attempt": 2, "data": {"percent": 41.7}}),
        ),
        message(
            3_600,
            "log",
            json!({"nodeId": "small", "attempt": 2, "stream": "stdout", "line": "frame=  120"}),
        ),
        message(4_000, "checkpoint", checkpoint),
    ]
}

#[test]
fn a_run_is_drawn_with_how_each_node_stands() {
    let mut view = video();
    apply(&mut view, &under_way());
    let expected = "\
● running 5.0 s  01890a5d-ac96-774b-bcce-b302099a8057  video

✓   fetch   command  succeeded  1.2 s
├─╮
│ ● small   command  running    attempt 2  2.0 s  42 %
● │ large   command  running    3.7 s  segment {\"done\":3}
├─╯
○   review  gate     pending
○   join    command  pending

checkpoint 1  large: segment {\"done\":3}
small │ frame=  120";
    assert_eq!(drawn(&view, 5_010, 120, None), expected);
}

#[test]
fn a_narrow_terminal_leaves_out_kinds_and_cuts_lines() {
    let mut view = video();
    apply(&mut view, &under_way());
    let long = json!({"nodeId": "large", "attempt": 1, "stream": "stderr", "line": "a long line ".repeat(10)});
    apply(&mut view, &[message(4_100, "log", long)]);
    let expected = "\
● running 5.0 s  01890a5d-ac96-774b-bcce-b302099a8057  video

✓   fetch   succeeded  1.2 s
├─╮
│ ● small   running    attempt 2  2.0 s  42 %
● │ large   running    3.7 s  segment {\"done\":3}
├─╯
○   review  pending
○   join    pending

checkpoint 1  large: segment {\"done\":3}
small │ frame=  120
large │ a long line a long line a long line a long line a lo";
    assert_eq!(drawn(&view, 5_010, 60, None), expected);
}

#[test]
fn a_gate_shows_what_it_waits_for_and_a_failure_its_reason() {
    let mut view = video();
    apply(&mut view, &under_way());
    let done = [
        node(6_000, "small", "succeeded", 2),
        node(7_000, "large", "succeeded", 1),
        node(7_010, "review", "waiting", 1),
    ];
    apply(&mut view, &done);
    let text = drawn(&view, 8_010, 100, None);
    assert!(
        text.contains("◇   review  gate     waiting    1.0 s"),
        "{text}"
    );
    assert!(
        text.ends_with(&format!("\nquintet runs approve {RUN} review")),
        "{text}"
    );
    let rejected =
        json!({"nodeId": "review", "status": "failed", "attempt": 1, "error": "rejected"});
    let end = [
        message(9_000, "node", rejected),
        node(9_000, "join", "skipped", 0),
        message(
            9_010,
            "status",
            json!({"status": "failed", "error": "node review failed: rejected"}),
        ),
    ];
    apply(&mut view, &end);
    let text = drawn(&view, 60_000, 100, None);
    assert!(text.starts_with("✗ failed 9.0 s  "), "{text}");
    assert!(
        text.contains("✗   review  gate     failed     2.0 s  rejected"),
        "{text}"
    );
    assert!(text.ends_with("\n\nnode review failed: rejected"), "{text}");
}

#[test]
fn a_graph_that_does_not_fit_is_printed_by_its_layers() {
    let nodes: Vec<Value> = (0..200)
        .map(|number| {
            let needs = if number < 100 {
                vec![]
            } else {
                vec![format!("n{}", number - 100)]
            };
            json!({"id": format!("n{number}"), "kind": "task", "queue": "q", "needs": needs})
        })
        .collect();
    let mut view = run(json!({"nodes": nodes}));
    let mut events = vec![message(0, "status", json!({"status": "running"}))];
    events.extend((0..60).map(|number| node(10, &format!("n{number}"), "succeeded", 1)));
    events.extend((60..63).map(|number| node(20, &format!("n{number}"), "running", 1)));
    apply(&mut view, &events);
    let expected = "\
● running 1.0 s  01890a5d-ac96-774b-bcce-b302099a8057  video

layer   1  ○ 37 pending  ● 3 running  ✓ 60 succeeded
layer   2  ○ 100 pending
● n60   task  running    1.0 s
● n61   task  running    1.0 s
● n62   task  running    1.0 s";
    assert_eq!(drawn(&view, 1_000, 100, Some(24)), expected);
    drawn(&view, 1_000, 100, Some(8));
    drawn(&view, 1_000, 20, None);
}

#[test]
fn the_steps_of_a_foreach_are_counted_and_those_under_way_are_named() {
    let mut view = run(json!({"nodes": [
        {"id": "each", "kind": "foreach", "items": [1, 2], "nodes": [{"id": "step", "kind": "task", "queue": "q"}]},
    ]}));
    let events = [
        message(0, "status", json!({"status": "running"})),
        node(0, "each", "running", 1),
        node(100, "each[0].step", "running", 1),
        node(200, "each[0].step", "succeeded", 1),
        node(300, "each[1].step", "running", 1),
    ];
    apply(&mut view, &events);
    let expected = "\
● running 1.0 s  01890a5d-ac96-774b-bcce-b302099a8057  video

● each  foreach  running    1.0 s  1 of 2 steps

● each[1].step  0.7 s";
    assert_eq!(drawn(&view, 1_000, 100, None), expected);
}

#[test]
fn a_run_without_a_plan_is_its_checkpoints() {
    let mut view = run(Value::Null);
    let checkpoint = |number: i64| {
        let data = json!({"id": RUN, "ts": at(number), "type": "step", "data": number});
        message(number, "checkpoint", data)
    };
    apply(&mut view, &(1..=5).map(checkpoint).collect::<Vec<_>>());
    let expected = "\
○ pending 1.0 s  01890a5d-ac96-774b-bcce-b302099a8057  video

checkpoint 3  step 3
checkpoint 4  step 4
checkpoint 5  step 5";
    assert_eq!(drawn(&view, 1_000, 100, None), expected);
}

#[test]
fn without_a_terminal_every_event_is_a_line() {
    let lines: Vec<String> = under_way()
        .iter()
        .filter_map(|message| watch::line_of(message, event_of(message)?))
        .collect();
    let expected = "\
2026-01-01T00:00:00.010Z  run          running
2026-01-01T00:00:00.010Z  fetch        queued
2026-01-01T00:00:00.020Z  fetch        running
2026-01-01T00:00:01.220Z  fetch        succeeded
2026-01-01T00:00:01.300Z  small        running
2026-01-01T00:00:01.310Z  large        running
2026-01-01T00:00:02.000Z  small        waiting: killed by signal 9
2026-01-01T00:00:03.000Z  small        running, attempt 2
2026-01-01T00:00:03.500Z  small        progress {\"percent\":41.7}
2026-01-01T00:00:03.600Z  small        │ frame=  120
2026-01-01T00:00:04.000Z  large        checkpoint segment {\"done\":3}";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn a_plan_is_drawn_with_the_workers_that_would_do_it() {
    let node =
        |id: &str, kind: &str, needs: &[&str]| json!({"id": id, "kind": kind, "needs": needs});
    let mut view = json!({
        "layers": [["fetch"], ["small", "large"], ["review"], ["join"]],
        "nodes": [node("fetch", "command", &[]), node("small", "command", &["fetch"]),
            node("large", "command", &["fetch"]), node("review", "gate", &["small", "large"]),
            node("join", "command", &["review"])],
        "edges": [{"from": "fetch", "to": "small"}, {"from": "fetch", "to": "large"}, {"from": "small", "to": "review"},
            {"from": "large", "to": "review"}, {"from": "review", "to": "join"}],
        "criticalPath": ["fetch", "small", "review", "join"],
        "warnings": ["no worker takes from the queue gpu now"],
    });
    for (number, queue, listens) in [
        (0, "command", true),
        (1, "command", true),
        (2, "gpu", false),
    ] {
        view["nodes"][number]["queue"] = json!(queue);
        view["nodes"][number]["hasWorker"] = json!(listens);
    }
    let view: PlanView = serde_json::from_value(view).unwrap();
    let lines: Vec<String> = plan::lines(&view, 100)
        .iter()
        .map(|line| plain(line, 100))
        .collect();
    let expected = "\
layer
    1  ●   fetch   command  queue command  a worker listens
       ├─╮
    2  │ ● small   command  queue command  a worker listens
       ● │ large   command  queue gpu  no worker listens
       ├─╯
    3  ●   review  gate
    4  ●   join    command

longest path  fetch → small → review → join
warning: no worker takes from the queue gpu now";
    assert_eq!(lines.join("\n"), expected);
}
