//! Every service is restarted in turn while clients continue.

use std::sync::atomic::{AtomicBool, Ordering};

use quintet_testkit::wait_for;
use quintet_tests::{Api, TIMEOUT};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::Cluster;

/// A client that tries the next edge when a connection fails, and never repeats what was answered.
struct Client {
    edges: Vec<Api>,
    next: usize,
}

impl Client {
    async fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let answered = wait_for("an edge that answers", TIMEOUT, async || {
            self.next += 1;
            let api = &self.edges[self.next % self.edges.len()];
            let sent = api.request(Method::POST, path).json(body).send().await;
            let answer = sent.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            let body = answer.json().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body))
        });
        answered.await.unwrap()
    }
}

#[tokio::test]
async fn every_service_is_restarted_under_load_and_no_request_fails() {
    let cluster = Cluster::start().await;
    let mut schedulers = [cluster.scheduler(), cluster.scheduler()];
    let (mut first, first_api) = cluster.edge().await;
    let (mut second, second_api) = cluster.edge().await;
    let mut agent = cluster.agent("one", 16);
    first_api.until_agent("one", "IDLE").await;
    let stop = AtomicBool::new(false);
    let load = async {
        let edges = vec![first_api.clone(), second_api.clone()];
        let mut client = Client { edges, next: 0 };
        let mut names = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let name = format!("rolling-{}", names.len());
            let (status, body) = client.post("/v1/jobs", &cluster.job(&name)).await;
            assert!(status == 201 || status == 200, "{status} {body}");
            names.push(name);
        }
        names
    };
    let some = async |count: usize| {
        let more = wait_for("the load to continue", TIMEOUT, async || {
            let last = cluster.runs(&format!("rolling-{count}"));
            if last.is_empty() {
                Err("not yet")
            } else {
                Ok(())
            }
        });
        more.await.unwrap();
    };
    let restarts = async {
        some(20).await;
        for scheduler in &mut schedulers {
            scheduler.signal(Signal::TERM).unwrap();
            assert!(scheduler.wait(TIMEOUT).await.unwrap().success());
            *scheduler = cluster.scheduler();
        }
        some(60).await;
        for (edge, api) in [(&mut first, &first_api), (&mut second, &second_api)] {
            edge.signal(Signal::TERM).unwrap();
            assert!(edge.wait(TIMEOUT).await.unwrap().success());
            let port = reqwest::Url::parse(&api.url("/")).unwrap().port().unwrap();
            *edge = cluster.edge_at(port).0;
            let ready = wait_for("the edge again", TIMEOUT, async || {
                match reqwest::get(api.url("/ready")).await {
                    Ok(answer) if answer.status().is_success() => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
            ready.await.unwrap();
        }
        some(100).await;
        // As an operator would: a job that runs on an agent that leaves would be stopped with it.
        let drain = |drain: bool| serde_json::json!({"drain": drain});
        let path = "/v1/agents/one/drain";
        first_api.post(path, drain(true)).await.expect(200);
        first_api.until_agent("one", "IDLE").await;
        agent.signal(Signal::TERM).unwrap();
        assert!(agent.wait(TIMEOUT).await.unwrap().success());
        agent = cluster.agent("one", 16);
        first_api.post(path, drain(false)).await.expect(200);
        // And one edge without notice.
        second.kill().unwrap();
        some(140).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (names, ()) = tokio::join!(load, restarts);
    cluster.all_ran_once(&first_api, &names).await;
}
