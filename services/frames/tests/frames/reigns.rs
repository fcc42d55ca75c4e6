//! What people set outlives every service, and another one drives the display when one is gone.

use crate::stage::{Stage, frame, id, next_tick};

#[tokio::test]
async fn another_service_goes_on_with_what_people_have_set() {
    let stage = Stage::open().await;
    let first = stage.serve("first", |_| {}).await;
    stage.look().await;
    stage.send("dot", frame(0, 0)).await.unwrap();
    stage.activate(Some("dot")).await.unwrap();
    stage.set_fps(7.5).await;
    let second = stage.serve("second", |_| {}).await;
    let mut told = stage.listen("dot").await;
    next_tick(&mut told).await;
    first.end().await;
    let look = stage
        .until("the other service", |look| {
            look.display.frames_received == 0
        })
        .await;
    assert_eq!(
        (look.stats.active, look.stats.fps.get(), look.manual),
        (Some(id("dot")), 7.5, true)
    );
    next_tick(&mut told).await;
    stage.send("dot", frame(3, 3)).await.unwrap();
    stage.until_shown(3, 3).await;
    second.end().await;
    // Nobody is there, and then somebody is again.
    stage.send("dot", frame(4, 4)).await.unwrap_err();
    let third = stage.serve("third", |_| {}).await;
    let look = stage.look().await;
    assert_eq!(
        (look.stats.active, look.stats.fps.get()),
        (Some(id("dot")), 7.5)
    );
    third.end().await;
}
