//! Flows: the whole system, seen from outside by the clients that users write.

#![expect(clippy::unwrap_used, reason = "a flow that cannot continue fails")]

mod access;
mod agent_socket;
mod agents;
mod bus;
mod environment;
mod events;
mod frame_workers;
mod frames_cli;
mod frames_http;
mod frames_sockets;
mod jobs;
mod leaders;
mod limits;
mod placement;
mod program;
mod python;
mod refusals;
mod roles;
mod run_workers;
mod runs_access;
mod runs_cli;
mod runs_http;
mod runs_k8s;
mod runs_sse;
mod runs_video;
mod schemathesis;
mod templates;
mod tls;
mod trace;
mod ui_socket;
mod video;
mod workers;
