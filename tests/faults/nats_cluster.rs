//! NATS as a cluster of three: a server of it is killed, or cut off from the others together with its clients.

use quintet_testkit::{NatsCluster, free_port, wait_for};
use quintet_tests::TIMEOUT;
use reqwest::Method;
use serde_json::Value;

use crate::cluster::{Cluster, names};

/// Jobs of each part of the load.
const JOBS: usize = 100;
/// The stream of all jobs.
const JOBS_STREAM: &str = "KV_quintet_jobs";

/// A server's report of the streams.
async fn streams(nats: &NatsCluster, server: usize) -> Result<Value, String> {
    let url = format!("{}/jsz?accounts=true&streams=true", nats.monitor(server));
    let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
    answer.json().await.map_err(|error| error.to_string())
}

/// The status of the copies of a stream, as a server sees it.
fn copies(report: &Value, stream: &str) -> Value {
    let streams = report["account_details"][0]["stream_detail"].as_array();
    let found = streams.and_then(|streams| streams.iter().find(|found| found["name"] == stream));
    found.map_or(Value::Null, |found| found["cluster"].clone())
}

/// The number of the server with this name.
fn number(name: &Value) -> Option<usize> {
    name.as_str()?.strip_prefix("server-")?.parse().ok()
}

/// The leader of the jobs and the leader of the cluster, once every server that is asked knows both.
async fn leaders(nats: &NatsCluster) -> (usize, usize) {
    let found = wait_for("leaders", TIMEOUT, async || {
        let mut found = None;
        for server in 0..nats.count() {
            let report = streams(nats, server).await?;
            let jobs = number(&copies(&report, JOBS_STREAM)["leader"]);
            let meta = number(&report["meta_cluster"]["leader"]);
            let (Some(jobs), Some(meta)) = (jobs, meta) else {
                return Err(report.to_string());
            };
            if *found.get_or_insert((jobs, meta)) != (jobs, meta) {
                return Err("they do not agree".to_owned());
            }
        }
        found.ok_or_else(|| "there is no server".to_owned())
    });
    found.await.unwrap()
}

/// Waits until every copy of every stream is as new as its leader's.
async fn until_caught_up(nats: &NatsCluster) {
    let caught_up = wait_for("all copies to catch up", TIMEOUT, async || {
        let mut seen = 0;
        for server in 0..nats.count() {
            let report = streams(nats, server).await?;
            let details = report["account_details"][0]["stream_detail"].clone();
            for stream in details.as_array().into_iter().flatten() {
                if number(&stream["cluster"]["leader"]) != Some(server) {
                    continue;
                }
                seen += 1;
                let replicas = stream["cluster"]["replicas"].as_array();
                let is_current = |copy: &Value| copy["current"] == true && copy["offline"] != true;
                if !replicas.is_some_and(|all| all.len() == 2 && all.iter().all(is_current)) {
                    return Err(stream["cluster"].to_string());
                }
            }
        }
        match seen {
            0 => Err("no server leads anything".to_owned()),
            _ => Ok(()),
        }
    });
    caught_up.await.unwrap();
}

/// Waits until all of these jobs have run.
async fn until_run(cluster: &Cluster<NatsCluster>, names: &[String]) {
    let ran = wait_for("jobs to run", TIMEOUT, async || {
        let waits = |name: &&String| cluster.runs(name).is_empty();
        match names.iter().filter(waits).count() {
            0 => Ok(()),
            left => Err(format!("{left} have not run")),
        }
    });
    ran.await.unwrap();
}

/// How many edges are clients of a server.
async fn edges_at(nats: &NatsCluster, server: usize) -> Result<usize, String> {
    let answer = reqwest::get(format!("{}/connz", nats.monitor(server))).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let report: Value = answer.json().await.map_err(|error| error.to_string())?;
    let all = report["connections"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    Ok(all
        .iter()
        .filter(|found| found["name"] == "quintet edge")
        .count())
}

#[tokio::test]
async fn the_nats_server_that_leads_is_killed_and_nothing_is_lost() {
    let mut cluster = Cluster::on(NatsCluster::start().await.unwrap());
    let _schedulers = [cluster.scheduler(), cluster.scheduler()];
    let (_edge, api) = cluster.edge().await;
    let _agents = [cluster.agent("one", 8), cluster.agent("two", 8)];
    api.until_agent("one", "IDLE").await;
    api.until_agent("two", "IDLE").await;
    let names = names(JOBS * 3);
    for (round, part) in names.chunks(JOBS).enumerate() {
        let (jobs, meta) = leaders(&cluster.nats).await;
        let (first, second) = part.split_at(JOBS / 2);
        cluster.submit(&api, first).await;
        let victim = match round {
            0 => jobs,
            1 => meta,
            _ => {
                cluster.submit(&api, second).await;
                continue;
            }
        };
        cluster.nats.server(victim).kill().await.unwrap();
        // Taken while one server is away, and run.
        cluster.submit(&api, second).await;
        until_run(&cluster, second).await;
        cluster.nats.server(victim).restart().await.unwrap();
        until_caught_up(&cluster.nats).await;
    }
    cluster.all_ran_once(&api, &names).await;
}

#[tokio::test]
async fn parts_that_are_cut_off_with_a_nats_server_do_no_harm_and_the_others_go_on() {
    let cluster = Cluster::on(NatsCluster::start().await.unwrap());
    // A process has to create the streams before their leaders are known.
    let mut first = cluster.scheduler();
    let (edge, api) = cluster.edge().await;
    let (alone, _) = leaders(&cluster.nats).await;
    let there = cluster.nats.url_of(|server| server == alone);
    let here = cluster.nats.url_of(|server| server != alone);
    // The scheduler that will lead, an edge and an agent, all on the server that leads the jobs and is to be alone.
    let mut old = cluster.scheduler_at(&there);
    first.kill().unwrap();
    drop(edge);
    drop(api);
    assert_eq!(cluster.leader(&[&old]).await, 0);
    let _new = cluster.scheduler_at(&here);
    let (_edge, api) = cluster.edge_of(free_port().unwrap(), &here);
    let (_cut_edge, cut_api) = cluster.edge_of(free_port().unwrap(), &there);
    cluster.until_ready(&api).await;
    cluster.until_ready(&cut_api).await;
    // An edge that may go to all servers, and went to that one: which it takes is chance.
    let mut roaming = Vec::new();
    let found = wait_for(
        "an edge that may roam, on the lonely server",
        TIMEOUT,
        async || {
            if !roaming.is_empty() && edges_at(&cluster.nats, alone).await? > 1 {
                return Ok(());
            }
            let (edge, api) = cluster.edge_at(free_port().unwrap());
            cluster.until_ready(&api).await;
            roaming.push((edge, api));
            Err(format!("{} are elsewhere", roaming.len()))
        },
    );
    found.await.unwrap();
    let (_roaming_edge, roaming_api) = roaming.pop().unwrap();
    drop(roaming);
    let _cut_agent = cluster.agent_at("cut", 1, &there);
    api.until_agent("cut", "IDLE").await;
    let fenced = api.submit(cluster.fenced("fenced")).await;
    let fenced = fenced["id"].as_str().unwrap().to_owned();
    api.until(&fenced, "RUNNING").await;
    let _agent = cluster.agent_at("other", 8, &here);
    api.until_agent("other", "IDLE").await;
    let names = names(JOBS * 2);
    let (before, after) = names.split_at(JOBS);
    cluster.submit(&api, before).await;
    cluster.nats.cut_off(alone);
    // The majority takes jobs, and runs them, and the one that the lost agent had.
    cluster.submit(&api, after).await;
    let moved = wait_for("the job on the other agent", TIMEOUT, async || {
        // While the remaining servers agree on new leaders, 503 is the documented answer.
        let job = api.get(&format!("/v1/jobs/{fenced}")).await.body;
        match job["agentId"] == "other" && job["status"] == "RUNNING" {
            true => Ok(()),
            false => Err(job.to_string()),
        }
    });
    moved.await.unwrap();
    until_run(&cluster, &names).await;
    // Parts that are cut off report it, and accept nothing that the others would not know of.
    cluster.until_not_ready(&cut_api).await;
    // A part that knows the other servers connects there.
    let roamed = vec!["roamed".to_owned()];
    cluster.submit(&roaming_api, &roamed).await;
    until_run(&cluster, &roamed).await;
    let late = vec!["late".to_owned()];
    let sent = cut_api.request(Method::POST, "/v1/jobs");
    let refused = sent.json(&cluster.job(&late[0])).send().await.unwrap();
    assert!(
        matches!(refused.status().as_u16(), 503 | 504),
        "{refused:?}"
    );
    let runs = cluster.runs("fenced");
    assert!(
        runs.len() >= 2 && runs.iter().all(|run| run == "ran"),
        "it ran in two places: {runs:?}"
    );
    cluster.nats.heal();
    cluster.until_ready(&cut_api).await;
    // While the servers elect again there may be no contact for longer than these short timings allow: the one that has
    // the job then gives it up as well, and it may be waiting to be started again, or have come back to this agent.
    let back = wait_for("the agent that was cut off", TIMEOUT, async || {
        let agent = cut_api.get("/v1/agents/cut").await.body;
        let job = cut_api.get(&format!("/v1/jobs/{fenced}")).await.body;
        let has_it = agent["currentJobId"] == fenced && job["agentId"] == "cut";
        match agent["state"] == "IDLE" || (agent["state"] == "RUNNING" && has_it) {
            true => Ok(()),
            false => Err(format!("{agent} {job}")),
        }
    });
    back.await.unwrap();
    until_caught_up(&cluster.nats).await;
    cluster.submit(&cut_api, &late).await;
    let stopped = wait_for("the order to stop", TIMEOUT, async || {
        // A scheduler that knows of an unwritable bucket answers 503 until a write to it is confirmed again.
        let answer = cut_api.order(&format!("/v1/jobs/{fenced}/stop")).await;
        match answer.status {
            202 => Ok(()),
            503 => Err(answer.text),
            _ => panic!("{answer:?}"),
        }
    });
    stopped.await.unwrap();
    let end = wait_for("the end of the job", TIMEOUT, async || {
        let status = cut_api.job(&fenced).await["status"].clone();
        match status == "STOPPED" || status == "CANCELED" {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    });
    let end = end.await.unwrap();
    let runs = cluster.runs("fenced");
    assert!(
        runs.iter().all(|run| run == "ran"),
        "it ran in two places: {runs:?}"
    );
    assert!(
        old.exited().unwrap().is_none(),
        "it waits for its turn again"
    );
    let names = [names, roamed, late].concat();
    let stopped = names.len() + usize::from(end == "STOPPED");
    cluster.all_ended(&cut_api, stopped).await;
    cluster.each_ran_once(&names);
}
