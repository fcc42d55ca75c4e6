//! Frames services are killed, frozen and asked to go, and NATS is restarted: the display continues under one of them,
//! with the desired state.

use std::time::Instant;

use bytes::Bytes;
use quintet_contract::bucket::LeaseKey;
use quintet_contract::frame::{Bitmap, Canvas};
use quintet_contract::id::WorkerId;
use quintet_contract::subject::WorkerFrame;
use quintet_testkit::wait_for;
use quintet_tests::{Api, TIMEOUT};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::slow::resident;

/// A worker that posts images, each another one.
struct Poster<'a> {
    api: &'a Api,
    sent: u32,
}

impl Poster<'_> {
    fn image(&mut self) -> Vec<u8> {
        self.sent += 1;
        let mut bitmap = Bitmap::dark(Canvas {
            width: 28,
            height: 14,
        });
        for bit in 0..16 {
            bitmap.set(bit, 0, self.sent >> bit & 1 == 1);
        }
        bitmap.to_rbm(self.sent, 0)
    }

    async fn post(&mut self) -> Result<(), String> {
        let image = self.image();
        let request = self.api.request(Method::POST, "/workers/dot/frame");
        let answer = request.body(image).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status().as_u16() {
            204 => Ok(()),
            status => Err(format!("{status}")),
        }
    }

    /// Posts until a frame is taken by a display that has it, and returns that answer.
    async fn until_shown(&mut self) -> Value {
        let shown = wait_for("a frame on the display", TIMEOUT, async || {
            self.post().await?;
            let display = self.api.get("/v1/display").await;
            match display.status == 200 && display.body["writerTicks"].as_u64() > Some(0) {
                true => Ok(display.body),
                false => Err(display.text),
            }
        });
        shown.await.unwrap()
    }
}

/// The whole desired state.
async fn set(api: &Api) -> Value {
    let get = async |path: &str| {
        let got = wait_for(path, TIMEOUT, async || {
            let answer = api.get(path).await;
            match answer.status {
                200 => Ok(answer.body),
                _ => Err(answer.text),
            }
        });
        got.await.unwrap()
    };
    json!({
        "active": get("/active").await["active"],
        "fps": get("/fps").await,
        "config": get("/workers/dot/config").await,
    })
}

/// Frames of the loud worker in one burst, and bursts.
const BURST: u32 = 2_000;
const BURSTS: u32 = 10;
/// Bytes of each of its frames that are none.
const NONSENSE: usize = 256 * 1024;
/// What the service may grow by. Kept, what it is sent would be more than 1 200 MiB.
const MEMORY_MIB: u64 = 256;

#[tokio::test]
async fn a_loud_worker_takes_neither_the_display_from_another_nor_the_memory_of_the_service() {
    let cluster = Cluster::start().await;
    let service = cluster.frames();
    let (_edge, api) = cluster.edge().await;
    let mut poster = Poster { api: &api, sent: 0 };
    let posted = wait_for("the first frame", TIMEOUT, async || poster.post().await);
    posted.await.unwrap();
    assert_eq!(api.post("/active", json!({"id": "dot"})).await.status, 204);
    poster.until_shown().await;
    let loud = cluster.bus().await;
    let subject = WorkerFrame {
        worker: WorkerId::parse("loud").unwrap(),
    };
    let nonsense = Bytes::from(vec![b'R'; NONSENSE]);
    let (before, mut most) = (resident(&service), 0);
    let mut shown = 0;
    for burst in 0..BURSTS {
        for number in 0..BURST {
            // A good one now and then, so that it is known.
            let frame = match number % 2 {
                0 => poster.image().into(),
                _ => nonsense.slice(..(number as usize * 131) % NONSENSE),
            };
            loud.publish_raw(&subject, frame).await.unwrap();
        }
        if burst % 2 == 0 {
            let display = api.get("/v1/display").await;
            let before = display.body["framesReceived"].as_u64().unwrap();
            let taken = wait_for("a frame of the quiet worker", TIMEOUT, async || {
                poster.post().await?;
                let display = api.get("/v1/display").await.body;
                match display["framesReceived"].as_u64() > Some(before) {
                    true => Ok(()),
                    false => Err(display.to_string()),
                }
            });
            taken.await.unwrap();
            shown += 1;
        }
        most = most.max(resident(&service));
    }
    assert_eq!(shown, BURSTS / 2);
    let grown = most.saturating_sub(before);
    println!("the frames service grew by {grown} MiB");
    assert!(grown < MEMORY_MIB, "the frames service grew by {grown} MiB");
    let stats = api.get("/stats").await.body;
    assert_eq!(stats["active"], "dot");
    assert_eq!(stats["degraded"], false);
}

#[tokio::test]
async fn the_display_is_driven_on_by_another_service_with_what_people_have_set() {
    let mut cluster = Cluster::start().await;
    let mut services = [cluster.frames(), cluster.frames()];
    let (_edge, api) = cluster.edge().await;
    let mut poster = Poster { api: &api, sent: 0 };
    let posted = wait_for("the first frame", TIMEOUT, async || poster.post().await);
    posted.await.unwrap();
    for (path, body) in [
        ("/active", json!({"id": "dot"})),
        ("/fps", json!({"fps": 12})),
        (
            "/workers/dot/config",
            json!({"speed": 3, "colour": "yellow"}),
        ),
    ] {
        assert_eq!(api.post(path, body).await.status, 204, "{path}");
    }
    let wanted = json!({
        "active": "dot",
        "fps": {"fps": 12, "manual": true},
        "config": {"speed": 3, "colour": "yellow"},
    });
    assert_eq!(set(&api).await, wanted);
    poster.until_shown().await;

    let leader = cluster
        .holder(LeaseKey::Frames, &[&services[0], &services[1]])
        .await;
    let began = Instant::now();
    services[leader].kill().unwrap();
    poster.until_shown().await;
    println!(
        "after a kill the display was driven on after {:?}",
        began.elapsed()
    );
    assert_eq!(set(&api).await, wanted);
    services[leader] = cluster.frames();

    // Frozen, it is deposed; thawed, it finds out before it does anything.
    let frozen = 1 - leader;
    services[frozen].signal(Signal::STOP).unwrap();
    poster.until_shown().await;
    services[frozen].resume().unwrap();
    assert_eq!(set(&api).await, wanted);
    let now = cluster
        .holder(LeaseKey::Frames, &[&services[0], &services[1]])
        .await;
    assert_eq!(now, leader);

    // Asked to go, it hands over at once.
    let began = Instant::now();
    services[now].signal(Signal::TERM).unwrap();
    assert!(services[now].wait(TIMEOUT).await.unwrap().success());
    poster.until_shown().await;
    println!(
        "after it was asked to go the display was driven on after {:?}",
        began.elapsed()
    );
    assert_eq!(set(&api).await, wanted);

    // The desired state is on the bus, and outlives it.
    services[now] = cluster.frames();
    cluster.nats.restart().await.unwrap();
    poster.until_shown().await;
    assert_eq!(set(&api).await, wanted);
    // No service is left, and then one is.
    for service in &mut services {
        service.kill().unwrap();
    }
    services[0] = cluster.frames();
    poster.until_shown().await;
    assert_eq!(set(&api).await, wanted);
}
