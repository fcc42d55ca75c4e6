//! `quintet frames` against a whole system: its output and its exit codes.

use std::process::Command;

use quintet_testkit::wait_for;
use quintet_tests::{Plan, Stack, TIMEOUT, binary, run_to_end};
use serde_json::{Value, json};

/// A command of the client: its exit code, and what it printed.
async fn quintet(stack: &Stack, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary());
    command
        .args(["--url", &stack.api.url(""), "frames"])
        .args(arguments);
    let output = run_to_end(command, &[]).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn effects_are_chosen_set_and_seen_from_the_command_line() {
    let plan = Plan {
        agents: 0,
        run_workers: 0,
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let good = async |arguments: &[&str]| {
        let (code, out, err) = quintet(&stack, arguments).await;
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?} {out}");
        out
    };
    let offered = wait_for("the effects", TIMEOUT, async || {
        let known = stack.api.get("/sources").await.body["known"].take();
        let all = json!(["bouncing-dot", "simplex-noise", "text"]);
        (known == all).then_some(()).ok_or(known.to_string())
    });
    offered.await.unwrap();
    assert!(good(&["active"]).await.starts_with("no worker is active;"));
    let (code, _, err) = quintet(&stack, &["active", "dot"]).await;
    assert!(
        code == 3
            && err.contains(
                "there is no worker \"dot\"; there are bouncing-dot, simplex-noise, text"
            ),
        "{code} {err}"
    );
    let shown = good(&["config", "simplex-noise", "threshold=-1"]).await;
    assert!(
        shown.contains("threshold") && shown.contains("-1"),
        "{shown}"
    );
    let shown = good(&["active", "simplex-noise"]).await;
    assert!(shown.starts_with("simplex-noise is shown"), "{shown}");
    let full = image('█');
    let seen = wait_for("a display that is lit", TIMEOUT, async || {
        let seen = good(&["preview"]).await;
        if seen == full { Ok(()) } else { Err(seen) }
    });
    seen.await.unwrap();
    good(&["config", "simplex-noise", "--json", "{\"threshold\": 300}"]).await;
    let dark = image(' ');
    let seen = wait_for("a display that is dark", TIMEOUT, async || {
        let seen = good(&["preview", "--once"]).await;
        if seen == dark { Ok(()) } else { Err(seen) }
    });
    seen.await.unwrap();

    assert_eq!(
        good(&["fps"]).await,
        "30 frames per second, the display's own"
    );
    let set = good(&["fps", "12"]).await;
    assert!(
        set.starts_with("12 frames per second, set by hand"),
        "{set}"
    );
    let (code, _, err) = quintet(&stack, &["fps", "31"]).await;
    assert!(
        code == 4 && err.contains("fps exceeds max 30"),
        "{code} {err}"
    );
    assert!(good(&["fps", "--reset"]).await.starts_with("30 "));

    good(&["start", "text"]).await;
    let stats = good(&["stats", "--output", "json"]).await;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["active"], "simplex-noise");
    assert!(stats["counts"]["forwarded"].as_u64() > Some(0), "{stats}");
    let both = wait_for("two that run", TIMEOUT, async || {
        let running = good(&["stats"]).await;
        let line = "running   simplex-noise, text";
        let is_there = running.lines().any(|found| found == line);
        is_there.then_some(()).ok_or(running)
    });
    both.await.unwrap();
    good(&["stop", "text"]).await;
    assert!(
        good(&["active", "--none"])
            .await
            .starts_with("no worker is active;")
    );
    let none: [&str; 0] = [];
    let (code, _, _) = quintet(&stack, &none).await;
    assert_eq!(code, 2);
}

/// A display of one kind of half blocks, in its frame.
fn image(block: char) -> String {
    let (inside, edge) = (block.to_string().repeat(28), "─".repeat(28));
    let rows = vec![format!("│{inside}│"); 7];
    format!("┌{edge}┐\n{}\n└{edge}┘", rows.join("\n"))
}
