//! A runner that comes after another.

use super::super::job;
use super::*;
use quintet_testkit::kubernetes::{Cluster, Verb};

#[tokio::test]
async fn another_runner_goes_on_where_the_first_one_was_killed() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    let mut first = RunningAttempt::start(&kubernetes, execution());
    run_program(&cluster).await;
    write_lines(&cluster, 0..5, SECOND / 2);
    let before = first.some(3).await;
    first.task.abort();

    let after = before.last().unwrap().seq;
    let mut second = RunningAttempt::start(
        &kubernetes,
        Execution {
            after,
            ..execution()
        },
    );
    write_lines(&cluster, 5..8, SECOND / 2);
    cluster.end(0, "Completed").await;
    let mut reported: Vec<_> = before.into_iter().map(|reported| reported.event).collect();
    reported.extend(second.rest().await);
    let mut expected = lines(0..8);
    expected.push(succeeded());
    assert_eq!(reported, expected);
    assert_eq!(cluster.requests(Verb::CreateJob).len(), 1);
}

#[tokio::test]
async fn a_job_that_exists_is_adopted_even_if_nothing_of_it_was_seen() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    let first = RunningAttempt::start(&kubernetes, execution());
    cluster.job().await;
    first.task.abort();
    run_program(&cluster).await;
    cluster.log(START, "line 0\n");
    cluster.end(0, "Completed").await;

    let mut second = RunningAttempt::start(&kubernetes, execution());
    assert_eq!(second.rest().await, [line("line 0"), succeeded()]);
    assert_eq!(cluster.requests(Verb::CreateJob).len(), 2);
}

#[tokio::test]
async fn a_job_of_another_owner_is_left_alone() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    let mut foreign = job::job(&execution(), &kubernetes.config).unwrap();
    foreign.metadata.annotations = None;
    cluster.put_job(foreign);
    let mut attempt = RunningAttempt::start(&kubernetes, execution());
    let name = execution().job_name();
    let error = format!("a Job {name} that is not of this run exists");
    assert_eq!(attempt.rest().await, [failed(&error, false)]);
    assert_eq!(cluster.requests(Verb::DeleteJob).len(), 0);
}

#[tokio::test]
async fn a_job_that_is_gone_is_not_begun_a_second_time() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    let mut attempt = RunningAttempt::start(
        &kubernetes,
        Execution {
            after: 7,
            ..execution()
        },
    );
    let error = "its Job was removed from the cluster before its end was seen";
    assert_eq!(attempt.rest().await, [failed(error, true)]);
    assert_eq!(cluster.requests(Verb::CreateJob).len(), 0);
}
