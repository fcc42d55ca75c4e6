//! Ends, panics, nesting and deadlines, in paused time.

use std::convert::Infallible;
use std::future::pending;
use std::io;

use tokio::time::{Instant, sleep};

use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

fn until_stopped(tasks: &Tasks) -> impl Future<Output = Result<(), Infallible>> + use<> {
    let token = tasks.token();
    async move {
        token.cancelled().await;
        Ok(())
    }
}

async fn no_end_within(tasks: &Tasks, time: Duration) -> bool {
    tokio::time::timeout(time, tasks.wait()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_an_essential_task_stops_its_group_and_is_named() {
    let tasks = Tasks::new("edge");
    tasks.spawn("pump", ExitPolicy::Essential, until_stopped(&tasks));
    tasks.spawn("http", ExitPolicy::Essential, async {
        sleep(Duration::from_secs(1)).await;
        Err(io::Error::other("port taken"))
    });
    let end = tasks.wait().await;
    assert_eq!(chain(&end).to_string(), "task edge/http failed: port taken");
    assert!(tasks.token().is_cancelled());
    assert!(tasks.shutdown(DEADLINE).await.is_clean());
    assert_eq!(
        tasks.wait().await.task,
        "edge/http",
        "the first end stays the first"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_reported_under_the_name_of_its_task() {
    let tasks = Tasks::new("scheduler");
    tasks.spawn("driver", ExitPolicy::Essential, async {
        sleep(Duration::from_secs(1)).await;
        if Instant::now().elapsed() < Duration::MAX {
            panic!("no such {}", "slot");
        }
        Ok::<(), Infallible>(())
    });
    let end = tasks.wait().await;
    assert_eq!(
        end.to_string(),
        "task scheduler/driver panicked: no such slot"
    );
}

#[tokio::test(start_paused = true)]
async fn optional_tasks_may_end_or_panic_without_stopping_anything() {
    let tasks = Tasks::new("edge");
    tasks.spawn("gauges", ExitPolicy::Optional, async {
        Err(io::Error::other("once"))
    });
    tasks.spawn("cache", ExitPolicy::Optional, async {
        panic!("twice");
        #[expect(unreachable_code, reason = "gives the future its type")]
        Ok::<(), Infallible>(())
    });
    assert!(no_end_within(&tasks, Duration::from_secs(60)).await);
    assert!(tasks.running().is_empty());
    assert!(!tasks.token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn shutdown_names_and_aborts_what_does_not_end_in_time() {
    let tasks = Tasks::new("agent");
    let jobs = tasks.child("jobs", ExitPolicy::Optional);
    tasks.spawn("polite", ExitPolicy::Essential, until_stopped(&tasks));
    jobs.spawn(
        "deaf",
        ExitPolicy::Optional,
        pending::<Result<(), Infallible>>(),
    );
    let token = tasks.token();
    jobs.spawn("sore", ExitPolicy::Optional, async move {
        token.cancelled().await;
        Err(io::Error::other("no disk"))
    });

    let began = Instant::now();
    let report = tasks.shutdown(DEADLINE).await;
    assert_eq!(began.elapsed(), DEADLINE);
    assert_eq!(report.aborted, ["agent/jobs/deaf"]);
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.failed[0].task, "agent/jobs/sore");
    assert!(tasks.running().is_empty(), "aborted tasks are gone");
}

#[tokio::test(start_paused = true)]
async fn stopping_a_child_leaves_its_parent_running() {
    let tasks = Tasks::new("agent");
    let job = tasks.child("job", ExitPolicy::Essential);
    job.spawn("process", ExitPolicy::Essential, until_stopped(&job));
    tasks.spawn("heart", ExitPolicy::Essential, until_stopped(&tasks));
    assert!(job.shutdown(DEADLINE).await.is_clean());
    assert!(no_end_within(&tasks, Duration::from_secs(1)).await);
    assert_eq!(tasks.running(), ["agent/heart"]);
}

#[tokio::test(start_paused = true)]
async fn an_essential_end_goes_up_through_essential_groups_only() {
    for (policy, stops) in [(ExitPolicy::Essential, true), (ExitPolicy::Optional, false)] {
        let root = Tasks::new("quintet");
        let child = root.child("edge", policy);
        child.spawn("http", ExitPolicy::Essential, async {
            Ok::<(), Infallible>(())
        });
        assert!(child.wait().await.is_finished());
        assert_eq!(root.token().is_cancelled(), stops, "{policy:?}");
    }
}
