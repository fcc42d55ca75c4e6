//! Status streams: every status in order, resumed without gap or repeat, on any edge.

use quintet_tests::Stack;
use serde_json::json;

#[tokio::test]
async fn every_status_comes_in_order_once_and_the_stream_ends_with_the_job() {
    let stack = Stack::start().await;
    let later = json!({"inlineConfig": {"durationMs": 20}});
    let id = stack.api.submit(later).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let feed = stack
        .api
        .events(&format!("/v1/jobs/{id}/events"), None)
        .await;
    let events = feed.rest_of("job.status").await;
    let statuses: Vec<&str> = events
        .iter()
        .map(|event| event.data["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, stack.api.story(&id).await);
    let positions: Vec<u64> = events
        .iter()
        .map(|event| event.id.parse().unwrap())
        .collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_drops_after_every_event_misses_nothing_and_sees_nothing_twice() {
    let stack = Stack::start().await;
    let id = stack.api.submit_noop().await;
    stack.api.until(&id, "RUNNING").await;
    let path = format!("/v1/jobs/{id}/events");
    let (mut seen, mut last) = (Vec::new(), None::<String>);
    loop {
        let mut feed = stack.api.events(&path, last.as_deref()).await;
        if seen.last().is_some_and(|status| status == "RUNNING") {
            stack
                .api
                .order(&format!("/v1/jobs/{id}/stop"))
                .await
                .expect(202);
        }
        let Some(message) = feed.next_of("job.status").await else {
            break;
        };
        seen.push(message.data["status"].as_str().unwrap().to_owned());
        last = Some(message.id);
        if seen.last().is_some_and(|status| status == "STOPPED") {
            break;
        }
    }
    assert_eq!(seen, stack.api.story(&id).await);
}
