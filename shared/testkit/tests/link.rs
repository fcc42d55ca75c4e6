//! The relay against a plain echo server.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use quintet_testkit::Link;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(5);
/// Long enough to notice bytes that should not have come; nothing waits for it in a passing link.
const SILENCE: Duration = Duration::from_millis(100);

async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn expect_echo(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).await.unwrap();
    expect_to_receive(client, text).await;
}

async fn expect_to_receive(client: &mut TcpStream, text: &str) {
    let mut back = vec![0; text.len()];
    timeout(DEADLINE, client.read_exact(&mut back))
        .await
        .expect("an echo before the deadline")
        .unwrap();
    assert_eq!(back, text.as_bytes());
}

#[tokio::test]
async fn a_cut_ends_connections_old_and_new_until_healed() {
    let link = Link::to(echo().await).await.unwrap();
    let mut client = TcpStream::connect(link.addr()).await.unwrap();
    expect_echo(&mut client, "before").await;

    link.cut();
    let end = timeout(DEADLINE, client.read(&mut [0; 8]))
        .await
        .expect("the cut is noticed");
    assert!(matches!(end, Err(_) | Ok(0)), "{end:?}");
    // The reset may reach the client before or after connect returns.
    if let Ok(mut refused) = TcpStream::connect(link.addr()).await {
        let end = timeout(DEADLINE, refused.read(&mut [0; 8]))
            .await
            .expect("a new connection is refused");
        assert!(matches!(end, Err(_) | Ok(0)), "{end:?}");
    }

    link.heal();
    let mut client = TcpStream::connect(link.addr()).await.unwrap();
    expect_echo(&mut client, "after").await;
}

#[tokio::test]
async fn a_cut_healed_at_once_still_ends_what_was_there() {
    let link = Link::to(echo().await).await.unwrap();
    let mut client = TcpStream::connect(link.addr()).await.unwrap();
    expect_echo(&mut client, "before").await;
    link.cut();
    link.heal();
    let end = timeout(DEADLINE, client.read(&mut [0; 8]))
        .await
        .expect("the cut is noticed");
    assert!(matches!(end, Err(_) | Ok(0)), "{end:?}");
}

#[tokio::test]
async fn a_stall_keeps_connections_and_delivers_when_healed() {
    let link = Link::to(echo().await).await.unwrap();
    let mut client = TcpStream::connect(link.addr()).await.unwrap();
    expect_echo(&mut client, "before").await;

    link.stall();
    client.write_all(b"held back").await.unwrap();
    let nothing = timeout(SILENCE, client.read_u8()).await;
    assert!(nothing.is_err(), "a stalled link moved {nothing:?}");

    link.heal();
    expect_to_receive(&mut client, "held back").await;
}
