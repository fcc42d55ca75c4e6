//! The planning service: any runner answers. Nothing is stored, and nothing is kept here.

use std::collections::BTreeMap;

use futures::StreamExt;
use quintet_bus::Bus;
use quintet_contract::error::ErrorReply;
use quintet_contract::id::QueueName;
use quintet_contract::run_api::{PlanReply, PlanRun};
use quintet_contract::subject::PlanRuns;
use quintet_service::telemetry::chain;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::core::plan_view;
use crate::error::Error;

/// Serves until `shutdown`.
pub(crate) async fn serve(bus: Bus, shutdown: CancellationToken) -> Result<(), Error> {
    let micro = bus
        .micro("plans", "plans of runs: what would be done")
        .await
        .map_err(quintet_leader::Error::subscribing("the plans service"))?;
    let mut plans = micro
        .endpoint("plan", &PlanRuns {})
        .await
        .map_err(quintet_leader::Error::subscribing("plan"))?;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            request = plans.next() => match request {
                Some(request) => match plan(&bus, &request.message).await {
                    Ok(reply) => request.responder.ok(&reply).await,
                    Err(error) => request.responder.err(&error).await,
                },
                None => break,
            }
        }
    }
    micro.stop().await;
    Ok(())
}

async fn plan(bus: &Bus, wanted: &PlanRun) -> Result<PlanReply, ErrorReply> {
    let mut plan = plan_view(&wanted.plan, wanted.mode)?;
    let mut listened: BTreeMap<String, bool> = BTreeMap::new();
    for node in &mut plan.nodes {
        let Some(name) = &node.queue else { continue };
        if !listened.contains_key(name) {
            let Some(has_worker) = has_worker(bus, name).await else {
                continue;
            };
            listened.insert(name.clone(), has_worker);
        }
        node.has_worker = listened.get(name).copied();
    }
    for (queue, has_worker) in &listened {
        if !has_worker {
            plan.warnings.push(format!(
                "no worker listens on the queue {queue} now; its tasks will wait for one"
            ));
        }
    }
    Ok(PlanReply { plan })
}

/// Whether a worker takes from a queue now; `None` when that cannot be found out.
async fn has_worker(bus: &Bus, queue: &str) -> Option<bool> {
    let queue = QueueName::parse(queue).ok()?;
    match bus.queue_state(&queue).await {
        Ok(state) => Some(state.is_some_and(quintet_bus::QueueState::has_worker)),
        Err(error) => {
            debug!(%queue, error = %chain(&error), "cannot read the state of a queue");
            None
        }
    }
}
