//! How programs end, and what is reported of it.

use serde_json::json;

use super::*;
use quintet_testkit::kubernetes::{Cluster, Verb, status};

fn waiting(reason: &str, message: &str) -> serde_json::Value {
    status(
        "Pending",
        json!({"waiting": {"reason": reason, "message": message}}),
    )
}

#[tokio::test]
async fn a_program_that_ends_well_is_reported_from_its_first_line_to_its_last() {
    let (cluster, mut attempt) = begun().await;
    cluster.pod(waiting("ContainerCreating", "")).await;
    run_program(&cluster).await;
    let written = [
        "hello\n",
        "{\"type\":\"progress\",\"percent\":50}\n",
        "{\"type\":\"checkpoint\",\"name\":\"half\",\"data\":{\"frame\":5}}\n",
        "{\"type\":\"output\",\"data\":{\"frames\":10}}\n",
        "no line end",
    ];
    for (index, text) in written.into_iter().enumerate() {
        cluster.log(START + index as i64, text);
    }
    cluster.end(0, "Completed").await;
    let object = |value| serde_json::from_value(value).unwrap();
    let expected = [
        line("hello"),
        WorkerEvent::Progress {
            data: object(json!({"percent": 50})),
        },
        WorkerEvent::Checkpoint {
            name: Some("half".to_owned()),
            data: Some(json!({"frame": 5})),
        },
        WorkerEvent::Output {
            data: object(json!({"frames": 10})),
        },
        line("no line end"),
        succeeded(),
    ];
    assert_eq!(attempt.rest().await, expected);
    assert_eq!(cluster.requests(Verb::CreateJob).len(), 1);
    assert_eq!(cluster.requests(Verb::DeleteJob).len(), 0);
}

#[tokio::test]
async fn exit_codes_and_error_events_decide_about_another_attempt() {
    let error = "{\"type\":\"error\",\"message\":\"no room\",\"retryable\":true}\n";
    let cases = [
        (3, "", failed("the program exited with status 3", true)),
        (1, "", failed("the program exited with status 1", false)),
        (1, error, failed("no room", true)),
    ];
    for (code, text, expected) in cases {
        let cluster = Cluster::start().await;
        let kubernetes = kubernetes(&cluster).await;
        let mut attempt = RunningAttempt::start(&kubernetes, execution());
        run_program(&cluster).await;
        if !text.is_empty() {
            cluster.log(START, text);
        }
        cluster.end(code, "Error").await;
        assert_eq!(attempt.rest().await, [expected]);
    }
}

#[tokio::test]
async fn a_program_beyond_its_timeout_failed_even_if_it_ends_with_zero() {
    let (cluster, mut attempt) = running().await;
    cluster.mark_pod_deleted();
    cluster.end(0, "Completed").await;
    // The Job may show it later than its pod.
    cluster.until_requested(Verb::GetJob, 2).await;
    cluster.fail_job("DeadlineExceeded");
    let error = "the program took longer than its timeout of 1m 30s 500ms";
    assert_eq!(attempt.rest().await, [failed(error, true)]);
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_fails_after_its_job_is_removed() {
    let (cluster, mut attempt) = begun().await;
    cluster.pod(waiting("ErrImagePull", "not found")).await;
    cluster.pod(waiting("ImagePullBackOff", "not found")).await;
    let error = "the image busybox:1 cannot be pulled: ImagePullBackOff: not found";
    assert_eq!(attempt.rest().await, [failed(error, true)]);
    let [removed] = &cluster.requests(Verb::DeleteJob)[..] else {
        panic!("it is removed once");
    };
    assert_eq!(removed.body["propagationPolicy"], "Foreground");
}

#[tokio::test]
async fn a_program_that_finds_no_place_in_time_fails_with_the_reason() {
    let cluster = Cluster::start().await;
    let kubernetes = with_config(&cluster, |config| {
        config.start_timeout = Duration::from_millis(300);
    })
    .await;
    let mut attempt = RunningAttempt::start(&kubernetes, execution());
    cluster
        .pod(json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient memory"},
        ]}))
        .await;
    let error = "no node of the cluster could take the program within 300ms: Unschedulable: Insufficient memory";
    assert_eq!(attempt.rest().await, [failed(error, true)]);
    assert_eq!(cluster.requests(Verb::DeleteJob).len(), 1);
}

#[tokio::test]
async fn a_program_that_the_cluster_takes_away_may_be_tried_again() {
    let (cluster, mut attempt) = running().await;
    cluster.end_log();
    cluster
        .pod(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}))
        .await;
    let error = "the cluster ended the program: Evicted: low on memory";
    assert_eq!(attempt.rest().await, [failed(error, true)]);
}

#[tokio::test]
async fn a_job_that_is_removed_from_outside_fails() {
    let (cluster, mut attempt) = running().await;
    cluster.log(START, "line 0\n");
    assert_eq!(attempt.some(1).await[0].event, line("line 0"));
    cluster.end_log();
    cluster.delete_job();
    cluster.delete_pod();
    let error = "its Job was removed from the cluster";
    assert_eq!(attempt.rest().await, [failed(error, true)]);
}

#[tokio::test]
async fn a_program_on_a_dead_node_is_given_up_when_its_job_has_failed() {
    let (cluster, mut attempt) = running().await;
    cluster.fail_job("BackoffLimitExceeded");
    let error = "its Job failed: BackoffLimitExceeded: Job was active longer";
    assert_eq!(attempt.rest().await, [failed(error, true)]);
}

#[tokio::test]
async fn a_cancel_removes_the_job_and_reports_nothing_more() {
    let (cluster, mut attempt) = running().await;
    cluster.log(START, "line 0\n");
    assert_eq!(attempt.some(1).await[0].event, line("line 0"));
    attempt.cancel.cancel();
    assert_eq!(attempt.rest().await, []);
    let [removed] = &cluster.requests(Verb::DeleteJob)[..] else {
        panic!("it is removed once");
    };
    assert_eq!(removed.body["propagationPolicy"], "Foreground");
    assert!(removed.body["preconditions"]["uid"].is_string());
}
