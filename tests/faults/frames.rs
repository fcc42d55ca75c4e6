//! Frames services are killed, frozen and asked to go, and NATS is restarted: the display is driven on, by one of them, with
//! what people have set.

use std::time::Instant;

use quintet_contract::bucket::LeaseKey;
use quintet_contract::frame::{Bitmap, Canvas};
use quintet_testkit::wait_for;
use quintet_tests::{Api, PATIENCE};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A worker that posts pictures, each another one.
struct Poster<'a> {
    api: &'a Api,
    sent: u32,
}

impl Poster<'_> {
    fn picture(&mut self) -> Vec<u8> {
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
        let picture = self.picture();
        let request = self.api.request(Method::POST, "/workers/dot/frame");
        let answer = request.body(picture).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status().as_u16() {
            204 => Ok(()),
            status => Err(format!("{status}")),
        }
    }

    /// Posts until a frame is taken by a display that has it, and gives what is said then.
    async fn until_shown(&mut self) -> Value {
        let shown = wait_for("a frame on the display", PATIENCE, async || {
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

/// Everything that people have set.
async fn set(api: &Api) -> Value {
    let get = async |path: &str| {
        let got = wait_for(path, PATIENCE, async || {
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

#[tokio::test]
async fn the_display_is_driven_on_by_another_service_with_what_people_have_set() {
    let mut cluster = Cluster::start().await;
    let mut services = [cluster.frames(), cluster.frames()];
    let (_edge, api) = cluster.edge().await;
    let mut poster = Poster { api: &api, sent: 0 };
    let posted = wait_for("the first frame", PATIENCE, async || poster.post().await);
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
    assert!(services[now].wait(PATIENCE).await.unwrap().success());
    poster.until_shown().await;
    println!(
        "after it was asked to go the display was driven on after {:?}",
        began.elapsed()
    );
    assert_eq!(set(&api).await, wanted);

    // All that people have set is on the bus, and outlives it.
    services[now] = cluster.frames();
    cluster.nats.restart().await.unwrap();
    poster.until_shown().await;
    assert_eq!(set(&api).await, wanted);
    // Nobody is left, and then somebody is.
    for service in &mut services {
        service.kill().unwrap();
    }
    services[0] = cluster.frames();
    poster.until_shown().await;
    assert_eq!(set(&api).await, wanted);
}
