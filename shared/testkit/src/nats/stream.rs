//! A stream that confirms nothing, while everything else on the same server continues.
//!
//! The server is asked over a plain connection that speaks the text protocol of NATS: what a stream is gets read, and
//! written again with `no_ack` changed.

use anyhow::Context;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Nats;

/// Subject of all replies to one connection.
const REPLY: &str = "testkit.reply";

impl Nats {
    /// From now on the server stores what is published to a stream without confirming it. Connections stay.
    ///
    /// # Errors
    /// When the server cannot be reached, or has no such stream.
    pub async fn withhold_acks(&self, stream: &str) -> anyhow::Result<()> {
        self.set_no_ack(stream, true).await
    }

    /// The server confirms again what is published to a stream.
    ///
    /// # Errors
    /// When the server cannot be reached, or has no such stream.
    pub async fn confirm_acks(&self, stream: &str) -> anyhow::Result<()> {
        self.set_no_ack(stream, false).await
    }

    async fn set_no_ack(&self, stream: &str, no_ack: bool) -> anyhow::Result<()> {
        let mut connection = Connection::open(self).await?;
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let info = connection.request(&subject, &Value::Null).await?;
        let mut config = info["config"].clone();
        config["no_ack"] = no_ack.into();
        let subject = format!("$JS.API.STREAM.UPDATE.{stream}");
        connection.request(&subject, &config).await?;
        Ok(())
    }
}

/// One connection that makes requests.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(nats: &Nats) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((nats.host(), nats.client_port())).await;
        let mut connection = Self(BufReader::new(stream.context("connecting to NATS")?));
        let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {REPLY} 1\r\n");
        connection.0.write_all(hello.as_bytes()).await?;
        Ok(connection)
    }

    /// Publishes a request, and waits for its reply, which must not be an error.
    async fn request(&mut self, subject: &str, body: &Value) -> anyhow::Result<Value> {
        let body = body.to_string();
        let message = format!("PUB {subject} {REPLY} {}\r\n{body}\r\n", body.len());
        self.0.write_all(message.as_bytes()).await?;
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).await?;
            anyhow::ensure!(read > 0, "NATS closed the connection");
            let line = line.trim_end();
            if line == "PING" {
                self.0.write_all(b"PONG\r\n").await?;
            }
            let Some(head) = line.strip_prefix("MSG ") else {
                anyhow::ensure!(!line.starts_with("-ERR"), "NATS refused a request: {line}");
                continue;
            };
            let length = head.rsplit(' ').next().context("a message has a length")?;
            let mut payload = vec![0; length.parse::<usize>()? + "\r\n".len()];
            self.0.read_exact(&mut payload).await?;
            let reply: Value = serde_json::from_slice(&payload)?;
            anyhow::ensure!(reply["error"].is_null(), "{subject}: {}", reply["error"]);
            return Ok(reply);
        }
    }
}
