//! The bus against a real nats-server, each test with one of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod codec;
mod kv;
mod lease;
mod messages;
mod nats;
mod permissions;
mod requests;
mod streams;
mod topology;
