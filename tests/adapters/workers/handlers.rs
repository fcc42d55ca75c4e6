//! Tasks that are done in the worker's own process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quintet_contract::JsonObject;
use quintet_contract::id::QueueName;
use quintet_contract::task::WorkerEvent;
use quintet_testkit::wait_for;
use quintet_workers::{TaskContext, TaskFailure};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::owner::{Fixture, TIMEOUT};

fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

async fn double(task: TaskContext) -> Result<JsonObject, TaskFailure> {
    let input = task.task().input.clone().unwrap_or_default();
    task.checkpoint(Some("seen".to_owned()), Some(input.clone()))
        .await;
    match input {
        Value::Number(number) => {
            task.log("doubling");
            let doubled = json!({"doubled": 2 * number.as_i64().unwrap()});
            Ok(doubled.as_object().cloned().unwrap())
        }
        Value::Null => Err(TaskFailure::retryable("there is nothing to double")),
        _ => panic!("cannot double that"),
    }
}

#[tokio::test]
async fn an_async_function_serves_a_queue() {
    let fixture = Fixture::start().await;
    let mut config = fixture.config("w");
    config.queues = vec![queue("double"), queue("other queue")];
    let _worker = fixture.worker_of(config, double).await;
    let give = async |name, queue: QueueName, input: Value| {
        fixture
            .task(name, queue, None, |task| task.input = Some(input))
            .await;
    };
    give("number", queue("double"), json!(21)).await;
    give("null", queue("other queue"), Value::Null).await;
    give("text", queue("double"), json!("x")).await;
    assert_eq!(fixture.ended("number").await, None);
    assert_eq!(fixture.output("number")["doubled"], 42);
    let failed = Some(("there is nothing to double".to_owned(), true));
    assert_eq!(fixture.ended("null").await, failed);
    let (error, retryable) = fixture.ended("text").await.unwrap();
    assert_eq!(
        (error.as_str(), retryable),
        ("the handler panicked: cannot double that", false)
    );
    fixture.until_empty(&queue("double")).await;
}

#[tokio::test]
async fn a_canceled_function_is_dropped_and_one_in_a_drain_is_returned_to_the_queue() {
    let fixture = Fixture::start().await;
    let mut config = fixture.config("w");
    config.queues = vec![queue("wait")];
    let begun = Arc::new(Notify::new());
    let seen = begun.clone();
    let worker = fixture.worker_of(config, move |_: TaskContext| {
        let begun = begun.clone();
        async move {
            begun.notify_one();
            std::future::pending::<Result<JsonObject, TaskFailure>>().await
        }
    });
    let worker = worker.await;
    let run = fixture.task("n", queue("wait"), None, |_| {}).await;
    seen.notified().await;
    fixture.cancel(&worker, run, "n", 1).await;
    assert_eq!(
        fixture.ended("n").await,
        Some(("it was canceled".to_owned(), false))
    );
    fixture.task("m", queue("wait"), None, |_| {}).await;
    seen.notified().await;
    worker.shut_down().await;
    let state = fixture
        .bus
        .queue_state(&queue("wait"))
        .await
        .unwrap()
        .unwrap();
    let failed = |event: &WorkerEvent| matches!(event, WorkerEvent::Failed { .. });
    assert_eq!((fixture.received("m", failed), state.waiting), (0, 0));
    let mut config = fixture.config("next");
    config.queues = vec![queue("wait")];
    let _next = fixture
        .worker_of(config, async |_: TaskContext| Ok(JsonObject::new()))
        .await;
    assert_eq!(fixture.ended("m").await, None);
    assert_eq!(fixture.attempt("m"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_small_tasks_share_their_messages() {
    const COUNT: usize = 5_000;
    let fixture = Fixture::start().await;
    let mut config = fixture.config("w");
    config.queues = vec![queue("small")];
    config.slots = 512;
    let names: Vec<String> = (0..COUNT).map(|number| format!("n{number}")).collect();
    for name in &names {
        fixture.task(name, queue("small"), None, |_| {}).await;
    }
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let begun = Instant::now();
    let _worker = fixture.worker_of(config, move |_: TaskContext| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok(JsonObject::new()) }
    });
    let _worker = _worker.await;
    wait_for("all tasks", TIMEOUT, async || {
        let done = count.load(Ordering::Relaxed);
        (done == COUNT).then_some(()).ok_or(format!("{done} tasks"))
    })
    .await
    .unwrap();
    fixture.until_empty(&queue("small")).await;
    let took = begun.elapsed();
    for name in &names {
        assert_eq!(fixture.facts(name).len(), 1);
    }
    let messages = fixture.messages();
    let reports: usize = messages.iter().sum();
    println!(
        "{COUNT} tasks in {took:?}, {reports} reports in {} messages",
        messages.len()
    );
    assert!(messages.len() * 3 < reports, "{} messages", messages.len());
    assert!(took < Duration::from_secs(20), "{took:?}");
}
