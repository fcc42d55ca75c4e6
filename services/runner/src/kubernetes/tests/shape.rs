//! The manifest of a Job.

use quintet_testkit::kubernetes::Verb;
use serde_json::Value;

use super::super::{KubernetesConfig, KubernetesError, job};
use super::*;

/// Written by people: what every Job must be.
const GOLDEN: &str = include_str!("job.json");

#[test]
fn a_job_is_what_the_specification_says() {
    let job = job::job(&execution(), &KubernetesConfig::default()).unwrap();
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let job = serde_json::to_value(&job).unwrap();
    assert_eq!(
        job,
        golden,
        "\n{}",
        serde_json::to_string_pretty(&job).unwrap()
    );
}

#[test]
fn dollars_arrive_as_they_were_written() {
    let job = job::job(&execution(), &KubernetesConfig::default()).unwrap();
    let container = &job.spec.unwrap().template.spec.unwrap().containers[0];
    let args = container.args.as_ref().unwrap();
    assert_eq!(expand(&args[1]), "echo $(NODE_ID) $$");
    let variables = container.env.iter().flatten();
    let mut spec = variables.filter(|variable| variable.name == "INPUT_SPEC");
    let spec = spec.next().unwrap().value.as_ref().unwrap();
    assert_eq!(expand(spec), r#"{"price":"5$"}"#);
}

/// Kubernetes' own rule: two dollars are one, a name in parentheses is a variable, everything else stays.
fn expand(text: &str) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some(end) = after.strip_prefix('(').and_then(|name| name.find(')')) {
            expanded.push_str("a variable");
            rest = &after[end + 2..];
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded + rest
}

#[tokio::test]
async fn a_node_that_cannot_be_a_job_fails_without_asking() {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    let mut no_image = execution();
    no_image.command.image = None;
    let mut too_long = execution();
    too_long
        .env
        .insert("RESUME_STATE".to_owned(), "x".repeat(131_072));
    let cases = [
        (no_image, "a node of a run on Kubernetes needs an image"),
        (
            too_long,
            "RESUME_STATE has 131085 bytes, and a program can be given 131071 at most",
        ),
    ];
    for (execution, error) in cases {
        let mut attempt = RunningAttempt::start(&kubernetes, execution);
        assert_eq!(attempt.rest().await, [failed(error, false)]);
    }
    assert_eq!(cluster.requests(Verb::CreateJob).len(), 0);
}

#[tokio::test]
async fn without_a_cluster_there_is_none() {
    let nothing = KubernetesConfig::default();
    assert!(!nothing.is_configured());
    let Err(error) = Kubernetes::connect(&nothing).await else {
        panic!("there is no cluster");
    };
    assert!(matches!(error, KubernetesError::NotConfigured));

    let missing = KubernetesConfig {
        kubeconfig: Some("/nowhere/config".into()),
        ..nothing
    };
    let Err(error) = Kubernetes::connect(&missing).await else {
        panic!("there is no kubeconfig");
    };
    assert_eq!(
        error.to_string(),
        "reading the kubeconfig /nowhere/config; name one that can be read in KUBECONFIG, or leave it out"
    );
}
