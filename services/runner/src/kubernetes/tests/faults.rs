//! An API that fails now and then.

use super::*;
use quintet_testkit::kubernetes::{Cluster, Fault, Verb};

#[tokio::test]
async fn a_log_that_breaks_again_and_again_is_reported_once_and_in_order() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    // In the middle of a time, of a line, and between two; the API sometimes hides that it broke off.
    for fault in [
        Fault::CutLog(10),
        Fault::CutLog(38 * 2 + 34),
        Fault::ShortLog(38 * 3),
        Fault::CutLog(38 * 4 + 3),
        Fault::Code(500, None),
        Fault::ShortLog(38 * 4 + 20),
    ] {
        cluster.fail_next(Verb::Log, fault);
    }
    let mut attempt = RunningAttempt::start(&kubernetes, execution());
    write_lines(&cluster, 0..10, SECOND / 3);
    run_program(&cluster).await;
    cluster.faults_used().await;
    write_lines(&cluster, 10..20, SECOND / 3);
    cluster.end(0, "Completed").await;
    let mut expected = lines(0..20);
    expected.push(succeeded());
    assert_eq!(attempt.rest().await, expected);
    let requests = cluster.requests(Verb::Log);
    assert!(!requests[0].query.contains_key("sinceTime"));
    assert!(requests.last().unwrap().query.contains_key("sinceTime"));
}

#[tokio::test]
async fn a_log_that_stays_silent_is_opened_again() {
    let cluster = Cluster::start().await;
    let mut kubernetes = kubernetes(&cluster).await;
    kubernetes.pace.log_silence = Duration::from_millis(50);
    let mut attempt = RunningAttempt::start(&kubernetes, execution());
    run_program(&cluster).await;
    // Before the first line there is no answer, after it a stream on which nothing comes.
    cluster.until_requested(Verb::Log, 2).await;
    write_lines(&cluster, 0..1, SECOND);
    let so_far = cluster.requests(Verb::Log).len();
    cluster.until_requested(Verb::Log, so_far + 2).await;
    write_lines(&cluster, 1..2, SECOND);
    cluster.end(0, "Completed").await;
    let mut expected = lines(0..2);
    expected.push(succeeded());
    assert_eq!(attempt.rest().await, expected);
}

#[tokio::test]
async fn a_success_without_its_whole_log_is_none() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    for _ in 0..20 {
        cluster.fail_next(Verb::Log, Fault::Code(500, None));
    }
    let mut attempt = RunningAttempt::start(&kubernetes, execution());
    run_program(&cluster).await;
    cluster.end(0, "Completed").await;
    let error = "the program ended well, and its output could not be read to the end: a fault: 500";
    assert_eq!(attempt.rest().await, [failed(error, true)]);
}

#[tokio::test]
async fn a_watch_goes_on_from_the_last_bookmark() {
    let (cluster, mut attempt) = begun().await;
    cluster.until_requested(Verb::WatchPods, 1).await;
    run_program(&cluster).await;
    let bookmark = cluster.bookmark();
    cluster.end_watches();
    let requests = cluster.until_requested(Verb::WatchPods, 2).await;
    assert_eq!(requests[1].query["resourceVersion"], bookmark.to_string());
    cluster.end(0, "Completed").await;
    assert_eq!(attempt.rest().await, [succeeded()]);
    assert_eq!(cluster.requests(Verb::ListPods).len(), 1);
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_begins_with_a_new_list() {
    for fault in [None, Some(Fault::Code(410, None))] {
        let cluster = Cluster::start().await;
        let kubernetes = kubernetes(&cluster).await;
        let mut attempt = RunningAttempt::start(&kubernetes, execution());
        cluster.until_requested(Verb::WatchPods, 1).await;
        match fault {
            // Reported within the watch, or instead of it.
            None => cluster.forget(),
            Some(fault) => cluster.fail_next(Verb::WatchPods, fault),
        }
        cluster.end_watches();
        cluster.until_requested(Verb::ListPods, 2).await;
        run_program(&cluster).await;
        cluster.end(0, "Completed").await;
        assert_eq!(attempt.rest().await, [succeeded()]);
    }
}

#[tokio::test]
async fn a_busy_api_is_given_the_time_that_it_asks_for() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    cluster.fail_next(Verb::CreateJob, Fault::Code(429, Some(1)));
    cluster.fail_next(Verb::CreateJob, Fault::Code(500, None));
    cluster.fail_next(Verb::ListPods, Fault::Code(503, None));
    cluster.fail_next(Verb::WatchPods, Fault::Code(500, None));
    cluster.fail_next(Verb::GetJob, Fault::Code(500, None));
    let mut attempt = RunningAttempt::start(&kubernetes, execution());
    run_program(&cluster).await;
    cluster.faults_used().await;
    cluster.end(0, "Completed").await;
    assert_eq!(attempt.rest().await, [succeeded()]);
    let requests = cluster.requests(Verb::CreateJob);
    assert_eq!(requests.len(), 3);
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn what_kubernetes_refuses_fails_with_its_words() {
    for (code, retryable) in [(422, false), (403, true)] {
        let cluster = Cluster::start().await;
        let kubernetes = kubernetes(&cluster).await;
        cluster.fail_next(Verb::CreateJob, Fault::Code(code, None));
        let mut attempt = RunningAttempt::start(&kubernetes, execution());
        let error = format!("Kubernetes refused the Job: a fault: {code}");
        assert_eq!(attempt.rest().await, [failed(&error, retryable)]);
    }
}

#[tokio::test]
async fn a_sign_of_life_comes_as_often_as_it_is_wanted() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    let wanted = Execution {
        heartbeat: Some(Duration::from_millis(10)),
        ..execution()
    };
    let mut attempt = RunningAttempt::start(&kubernetes, wanted);
    for _ in 0..3 {
        let reported = tokio::time::timeout(TIMEOUT, attempt.events.recv()).await;
        let expected = Reported {
            seq: 0,
            event: WorkerEvent::Heartbeat,
        };
        assert_eq!(reported.unwrap(), Some(expected));
    }
}
