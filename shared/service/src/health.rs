//! Health of a process: components, each ready, degraded or not ready.
//!
//! ```text
//!   component ── starting ──▶ ready ◀──▶ degraded ◀──▶ not ready
//! ```
//!
//! The process is ready when it has components and none of them is not ready. Degraded means it serves,
//! but an operator should look. Nothing here probes anything: components report, this adds up.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

const STARTING: &str = "starting";

/// The health of a process; a cheap handle, all clones are the same registry.
#[derive(Clone, Debug)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    service: String,
    started: Instant,
    components: watch::Sender<Components>,
}

type Components = BTreeMap<String, ComponentHealth>;

/// With it one component reports its state.
#[derive(Clone, Debug)]
pub struct ComponentHandle {
    name: String,
    health: Health,
}

/// How well a component, or the whole process, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Healthy,
    /// It serves, but not as it should.
    Degraded,
    /// It does not serve.
    Unhealthy,
}

/// The state of one component, as shown in the health body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentHealth {
    /// How well it is.
    pub status: Status,
    /// Why it is not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether the process may be sent work, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether it may.
    pub ready: bool,
    /// The components that stand in the way, with their reasons.
    pub reasons: Vec<(String, String)>,
}

/// The health body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Whether the process serves.
    pub ok: bool,
    /// The worst status of its components.
    pub status: Status,
    /// The name of the service.
    pub service: String,
    /// Whole seconds since the registry was made.
    pub uptime: u64,
    /// The components by name.
    pub components: BTreeMap<String, ComponentHealth>,
}

impl Health {
    /// A registry without components, which is not ready.
    pub fn new(service: impl Into<String>) -> Self {
        let shared = Shared {
            service: service.into(),
            started: Instant::now(),
            components: watch::Sender::new(BTreeMap::new()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Adds a component, not ready until it reports so. A known name gives another handle to the same one.
    pub fn component(&self, name: impl Into<String>) -> ComponentHandle {
        let name = name.into();
        self.shared.components.send_if_modified(|components| {
            if components.contains_key(&name) {
                return false;
            }
            let starting = ComponentHealth {
                status: Status::Unhealthy,
                reason: Some(STARTING.to_owned()),
            };
            components.insert(name.clone(), starting);
            true
        });
        ComponentHandle {
            name,
            health: self.clone(),
        }
    }

    /// Whether the process may be sent work now.
    pub fn readiness(&self) -> Readiness {
        readiness(&self.shared.components.borrow())
    }

    /// The health body as of now.
    pub fn snapshot(&self) -> Snapshot {
        let components = self.shared.components.borrow().clone();
        let status = worst(&components);
        Snapshot {
            ok: status != Status::Unhealthy,
            status,
            service: self.shared.service.clone(),
            uptime: self.shared.started.elapsed().as_secs(),
            components,
        }
    }

    /// Resolves when the process is ready. Cancel-safe: it only looks.
    pub async fn wait_ready(&self) {
        let mut components = self.shared.components.subscribe();
        // Fails only without a sender, and the sender is a field of self.
        let _ = components
            .wait_for(|components| readiness(components).ready)
            .await;
    }
}

impl ComponentHandle {
    /// It serves as it should.
    pub fn ready(&self) {
        self.report(Status::Healthy, None);
    }

    /// It does not serve.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.report(Status::Unhealthy, Some(reason.into()));
    }

    /// It serves, but not as it should.
    pub fn degraded(&self, reason: impl Into<String>) {
        self.report(Status::Degraded, Some(reason.into()));
    }

    fn report(&self, status: Status, reason: Option<String>) {
        let now = ComponentHealth { status, reason };
        let changed = self
            .health
            .shared
            .components
            .send_if_modified(|components| {
                let before = components.insert(self.name.clone(), now.clone());
                before.as_ref() != Some(&now)
            });
        if changed {
            let reason = now.reason.as_deref().unwrap_or_default();
            tracing::info!(
                component = self.name,
                ?status,
                reason,
                "component health changed"
            );
        }
    }
}

fn worst(components: &Components) -> Status {
    components
        .values()
        .map(|component| component.status)
        .max()
        .unwrap_or(Status::Unhealthy)
}

fn readiness(components: &Components) -> Readiness {
    if components.is_empty() {
        let reasons = vec![("process".to_owned(), STARTING.to_owned())];
        return Readiness {
            ready: false,
            reasons,
        };
    }
    let reasons: Vec<(String, String)> = components
        .iter()
        .filter(|(_, component)| component.status == Status::Unhealthy)
        .map(|(name, component)| (name.clone(), component.reason.clone().unwrap_or_default()))
        .collect();
    Readiness {
        ready: reasons.is_empty(),
        reasons,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_is_ready_when_every_component_serves() {
        let health = Health::new("orchestrator");
        assert!(!health.readiness().ready, "nothing has reported yet");
        let nats = health.component("nats");
        let streams = health.component("streams");
        nats.ready();
        streams.not_ready("stream assign is missing");
        let waiting = tokio::time::timeout(Duration::from_secs(1), health.wait_ready());
        assert!(waiting.await.is_err());
        let reasons = vec![("streams".to_owned(), "stream assign is missing".to_owned())];
        assert_eq!(
            health.readiness(),
            Readiness {
                ready: false,
                reasons
            }
        );

        let waiter = tokio::spawn({
            let health = health.clone();
            async move { health.wait_ready().await }
        });
        streams.degraded("one replica of three");
        waiter.await.unwrap();
        assert!(health.readiness().ready, "degraded still serves");
    }

    #[tokio::test(start_paused = true)]
    async fn the_health_body_shows_the_worst_component() {
        let health = Health::new("orchestrator");
        let nats = health.component("nats");
        health.component("leases").ready();
        tokio::time::advance(Duration::from_millis(61_500)).await;
        nats.degraded("reconnecting");
        let body = serde_json::to_value(health.snapshot()).unwrap();
        let expected = json!({
            "ok": true, "status": "degraded", "service": "orchestrator", "uptime": 61,
            "components": {
                "leases": {"status": "healthy"},
                "nats": {"status": "degraded", "reason": "reconnecting"},
            },
        });
        assert_eq!(body, expected);
        nats.not_ready("closed");
        let body = health.snapshot();
        assert_eq!((body.ok, body.status), (false, Status::Unhealthy));
    }
}
