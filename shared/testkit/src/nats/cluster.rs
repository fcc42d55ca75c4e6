//! Three servers that are one JetStream cluster, and the wires between them.
//!
//! Every route runs through a relay of its own, so that a server can be cut off from the others while its clients stay.
//! Servers gossip the addresses of other servers, which would lead around the relays: the address they advertise is one
//! where no process listens. For the same reason clients learn of no servers but those they are given.

use std::fmt::Write;

use anyhow::Context;

use super::{Backend, Nats};
use crate::link::Link;
use crate::port::free_port;

/// Servers of a cluster.
const SERVERS: usize = 3;

/// A cluster for one test, of local processes.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<Nats>,
    monitors: Vec<u16>,
    wires: Vec<Wire>,
}

/// What connects two servers.
#[derive(Debug)]
struct Wire {
    ends: [usize; 2],
    link: Link,
}

impl NatsCluster {
    /// Starts the servers; a leader they elect among themselves later.
    pub async fn start() -> anyhow::Result<Self> {
        let mut routes = Vec::new();
        for _ in 0..SERVERS {
            routes.push(free_port()?);
        }
        let mut wires = Vec::new();
        for (to, route) in routes.iter().enumerate() {
            for from in 0..to {
                let link = Link::to(("127.0.0.1", *route)).await?;
                let ends = [from, to];
                wires.push(Wire { ends, link });
            }
        }
        let mut cluster = Self {
            servers: Vec::new(),
            monitors: Vec::new(),
            wires,
        };
        for (number, route) in routes.into_iter().enumerate() {
            let monitor = free_port()?;
            let config = cluster.config(number, route, monitor)?;
            let options = Nats::options().config(config).backend(Backend::Binary);
            let server = options.start().await;
            cluster
                .servers
                .push(server.with_context(|| format!("starting server {number} of a cluster"))?);
            cluster.monitors.push(monitor);
        }
        Ok(cluster)
    }

    fn config(&self, number: usize, route: u16, monitor: u16) -> anyhow::Result<String> {
        // A route to itself counts, as a server without any would not be one of a cluster; it is not taken.
        let mut urls = format!("\"nats://127.0.0.1:{route}\", ");
        for wire in &self.wires {
            if wire.ends[0] == number {
                write!(urls, "\"nats://{}\", ", wire.link.addr())?;
            }
        }
        let name = Self::name(number);
        Ok(format!(
            r#"
server_name: {name}
http: "127.0.0.1:{monitor}"
cluster {{
    name: quintet
    listen: "127.0.0.1:{route}"
    advertise: "127.0.0.1:1"
    no_advertise: true
    pool_size: -1
    routes: [{urls}]
}}
"#
        ))
    }

    /// The name of a server in the reports of the others.
    pub fn name(number: usize) -> String {
        format!("server-{number}")
    }

    /// How many servers there are.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// One of the servers.
    pub fn server(&mut self, number: usize) -> &mut Nats {
        &mut self.servers[number]
    }

    /// All servers, as clients take them.
    pub fn url(&self) -> String {
        self.url_of(|_| true)
    }

    /// Some of the servers.
    pub fn url_of(&self, wanted: impl Fn(usize) -> bool) -> String {
        let wanted = (0..self.count()).filter(|number| wanted(*number));
        let urls: Vec<String> = wanted.map(|number| self.servers[number].url()).collect();
        urls.join(",")
    }

    /// The address of a server's monitoring endpoint.
    pub fn monitor(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.monitors[number])
    }

    /// Cuts the routes of a server; its clients stay.
    pub fn cut_off(&self, number: usize) {
        for wire in &self.wires {
            if wire.ends.contains(&number) {
                wire.link.cut();
            }
        }
    }

    /// Lets all servers reach each other again.
    pub fn heal(&self) {
        for wire in &self.wires {
            wire.link.heal();
        }
    }
}
