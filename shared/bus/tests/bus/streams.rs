//! Replays of one subject from a stream that many share.

use quintet_bus::{Bus, BusError, PageLimit};
use quintet_contract::subject::JobLogged;
use quintet_contract::topology::stream;

use crate::messages::{job, log};
use crate::nats::Nats;

/// Lines 0..`lines` of the job "mine", with one to three messages of other jobs after each.
async fn write(bus: &Bus, lines: usize) -> Vec<u64> {
    let (mut pending, mut others) = (Vec::new(), Vec::new());
    for number in 0..lines {
        let line = log("mine", &number.to_string());
        pending.push(
            bus.store(&JobLogged { job: job("mine") }, &line, None)
                .await
                .unwrap(),
        );
        for other in 0..=number % 3 {
            let name = format!("other-{other}");
            others.push(
                bus.store(&JobLogged { job: job(&name) }, &log(&name, "x"), None)
                    .await
                    .unwrap(),
            );
        }
    }
    let mut sequences = Vec::new();
    for one in pending {
        sequences.push(one.await.unwrap());
    }
    for other in others {
        other.await.unwrap();
    }
    sequences
}

fn lines(
    messages: &[(
        u64,
        quintet_contract::time::Timestamp,
        quintet_contract::event::JobLog,
    )],
) -> Vec<usize> {
    messages
        .iter()
        .map(|(_, _, log)| log.lines[0].line.parse().unwrap())
        .collect()
}

#[tokio::test]
async fn a_subject_is_replayed_in_parts_without_the_others() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let events = stream::events(bus.prefix());
    let mine = JobLogged { job: job("mine") };
    let empty = bus.replay(events.clone(), &mine, 1, 10).await.unwrap();
    assert_eq!(
        (empty.messages.len(), empty.last_sequence, empty.remaining),
        (0, 0, 0)
    );

    let sequences = write(&bus, 1_500).await;
    let first = bus.replay(events.clone(), &mine, 1, 1_200).await.unwrap();
    assert_eq!(lines(&first.messages), (0..1_200).collect::<Vec<_>>());
    assert_eq!(
        (first.last_sequence, first.remaining),
        (sequences[1_199], 300)
    );
    let rest = bus
        .replay(events.clone(), &mine, first.last_sequence + 1, 1_200)
        .await
        .unwrap();
    assert_eq!(lines(&rest.messages), (1_200..1_500).collect::<Vec<_>>());
    assert_eq!((rest.last_sequence, rest.remaining), (sequences[1_499], 0));
    assert!(rest.messages[0].1 <= quintet_bus::now());
    let after = bus
        .replay(events, &mine, rest.last_sequence + 1, 10)
        .await
        .unwrap();
    assert_eq!(
        (after.messages.len(), after.last_sequence),
        (0, rest.last_sequence)
    );
}

#[tokio::test]
async fn the_newest_messages_of_a_subject_are_found_among_the_others() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let events = stream::events(bus.prefix());
    let mine = JobLogged { job: job("mine") };
    assert!(
        bus.replay_last(events.clone(), &mine, 5, usize::MAX)
            .await
            .unwrap()
            .messages
            .is_empty()
    );
    write(&bus, 100).await;
    for count in [0, 1, 2, 7, 50, 99, 100, 101, 5_000] {
        let replay = bus
            .replay_last(events.clone(), &mine, count, usize::MAX)
            .await
            .unwrap();
        let expected: Vec<usize> = (100_usize.saturating_sub(count)..100).collect();
        assert_eq!(lines(&replay.messages), expected, "the last {count}");
        assert_eq!(replay.remaining, 0);
    }
    let none = JobLogged {
        job: job("unknown"),
    };
    assert!(
        bus.replay_last(events, &none, 5, usize::MAX)
            .await
            .unwrap()
            .messages
            .is_empty()
    );
}

#[tokio::test]
async fn pages_and_tails_are_bounded_in_bytes_but_hold_one_message_at_least() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let events = stream::events(bus.prefix());
    let mine = JobLogged { job: job("mine") };
    write(&bus, 100).await;
    for (bytes, range) in [(1, 1..=1), (1_000, 2..=30)] {
        let tail = bus.replay_last(events.clone(), &mine, 100, bytes).await;
        let found = lines(&tail.unwrap().messages);
        assert!(
            range.contains(&found.len()),
            "{} in {bytes} bytes",
            found.len()
        );
        assert_eq!(found.last(), Some(&99), "the newest are kept");
        let (mut next, mut all) = (1, Vec::new());
        while all.len() < 100 {
            let page = bus
                .replay_page(
                    events.clone(),
                    &mine,
                    next,
                    PageLimit {
                        messages: 1_000,
                        bytes: Some(bytes),
                    },
                )
                .await;
            let page = page.unwrap();
            assert!(
                range.contains(&page.messages.len()),
                "{} in {bytes} bytes",
                page.messages.len()
            );
            all.extend(lines(&page.messages));
            assert_eq!(page.remaining, 100 - all.len() as u64);
            next = page.last_sequence + 1;
        }
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_missing_stream_is_named() {
    let nats = Nats::start().await;
    let bus = nats.connect().await;
    let mine = JobLogged { job: job("mine") };
    let error = bus
        .replay("nowhere".to_owned(), &mine, 1, 1)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&error, BusError::NoStream { stream } if stream == "nowhere"),
        "{error}"
    );
}
