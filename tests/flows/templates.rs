//! Stored job templates.

use quintet_testkit::wait_for;
use quintet_tests::{Stack, TIMEOUT};
use serde_json::json;

#[tokio::test]
async fn a_template_is_stored_changed_used_and_deleted() {
    let stack = Stack::start().await;
    let template = json!({"executor": "exec", "config": {"command": ["echo", "{{greeting}} {{name}}"]},
        "defaults": {"greeting": "hello"}});
    assert_eq!(
        stack.api.get("/v1/templates").await.expect(200).body,
        json!([])
    );
    let made = stack.api.put("/v1/templates/echo", template.clone()).await;
    assert!([200, 201].contains(&made.status), "{}", made.text);
    assert_eq!(
        stack.api.get("/v1/templates/echo").await.expect(200).body["executor"],
        "exec"
    );
    assert_eq!(stack.api.get("/v1/templates").await.body[0]["id"], "echo");
    let job = json!({"templateId": "echo", "params": {"name": "bus"}});
    let id = stack.api.submit(job).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    stack.api.until(&id, "STOPPED").await;
    let logs = wait_for("the log", TIMEOUT, async || {
        let text = stack.api.get(&format!("/v1/jobs/{id}/logs")).await.text;
        if text.is_empty() {
            Err("nothing yet")
        } else {
            Ok(text)
        }
    });
    assert_eq!(logs.await.unwrap(), "hello bus\n");
    let incomplete = stack
        .api
        .post("/v1/jobs", json!({"templateId": "echo"}))
        .await
        .expect(422);
    assert!(
        incomplete.body["error"].as_str().unwrap().contains("name"),
        "{}",
        incomplete.text
    );
    assert_eq!(
        stack
            .api
            .put("/v1/templates/echo", json!({"config": {}}))
            .await
            .status,
        422
    );
    stack.api.delete("/v1/templates/echo").await.expect(200);
    assert_eq!(stack.api.delete("/v1/templates/echo").await.status, 404);
    assert_eq!(stack.api.get("/v1/templates/echo").await.status, 404);
}
