//! Agents that are killed, frozen or cut off: what may be started again runs elsewhere, and never in two places.

use quintet_testkit::{Link, Process, wait_for};
use quintet_tests::{Api, TIMEOUT};

use crate::cluster::Cluster;

/// Two agents, one of which runs a job that must not run twice.
struct Scene {
    cluster: Cluster,
    api: Api,
    job: String,
    /// The agent that has it, and the other.
    here: Process,
    other: Process,
    _parts: [Process; 2],
}

impl Scene {
    /// The job starts on the agent `here`, since the other one comes later.
    async fn start(link: Option<&Link>, cluster: Cluster) -> Self {
        let parts = cluster.scheduler();
        let (edge, api) = cluster.edge().await;
        let url = link.map_or(cluster.nats.url(), |link| format!("nats://{}", link.addr()));
        let here = cluster.agent_at("here", 1, &url);
        api.until_agent("here", "IDLE").await;
        let job = api.submit(cluster.fenced("fenced")).await;
        let job = job["id"].as_str().unwrap().to_owned();
        api.until(&job, "RUNNING").await;
        let other = cluster.agent("other", 1);
        api.until_agent("other", "IDLE").await;
        Self {
            cluster,
            api,
            job,
            here,
            other,
            _parts: [parts, edge],
        }
    }

    async fn until_it_runs_at(&self, agent: &str, times: usize) {
        let moved = wait_for("the job on the other agent", TIMEOUT, async || {
            let job = self.api.job(&self.job).await;
            let runs = self.cluster.runs("fenced").len();
            match job["agentId"] == agent && job["status"] == "RUNNING" && runs == times {
                true => Ok(()),
                false => Err(format!("{runs} runs, {}", job["timeline"])),
            }
        });
        moved.await.unwrap();
    }

    fn never_twice(&self, times: usize) {
        let runs = self.cluster.runs("fenced");
        assert_eq!(runs, vec!["ran"; times], "it never ran in two places");
    }
}

#[tokio::test]
async fn a_killed_agent_takes_its_processes_along_and_the_job_goes_on_elsewhere() {
    let mut scene = Scene::start(None, Cluster::start().await).await;
    scene.here.kill().unwrap();
    scene.until_it_runs_at("other", 2).await;
    scene.never_twice(2);
    let back = scene.cluster.agent("here", 1);
    scene.api.until_agent("here", "IDLE").await;
    drop(back);
}

#[tokio::test]
async fn a_frozen_agent_loses_its_job_and_its_processes_before_another_gets_it() {
    let mut scene = Scene::start(None, Cluster::start().await).await;
    scene.here.pause().await.unwrap();
    scene.until_it_runs_at("other", 2).await;
    scene.never_twice(2);
    scene.here.resume().unwrap();
    scene.api.until_agent("here", "IDLE").await;
    // And back again, so that the one that was frozen is seen to work.
    scene.other.kill().unwrap();
    scene.until_it_runs_at("here", 3).await;
    scene.never_twice(3);
}

#[tokio::test]
async fn an_agent_that_is_cut_off_gives_its_job_up_and_comes_back() {
    let cluster = Cluster::start().await;
    let nats = (cluster.nats.host().to_owned(), cluster.nats.client_port());
    let link = Link::to(nats).await.unwrap();
    let mut scene = Scene::start(Some(&link), cluster).await;
    link.cut();
    scene.until_it_runs_at("other", 2).await;
    scene.never_twice(2);
    link.heal();
    scene.api.until_agent("here", "IDLE").await;
    // A link on which nothing moves is worse than one that is reset.
    scene.other.kill().unwrap();
    scene.until_it_runs_at("here", 3).await;
    let other = scene.cluster.agent("other", 1);
    scene.api.until_agent("other", "IDLE").await;
    link.stall();
    scene.until_it_runs_at("other", 4).await;
    scene.never_twice(4);
    link.heal();
    scene.api.until_agent("here", "IDLE").await;
    drop(other);
}
