//! The life of a process: configuration, telemetry, supervised tasks, signals, health.
//!
//! Every program of Quintet starts and ends the same way: [`settings`] are read, all problems with them
//! reported at once; [`telemetry`] is set up; services run as [`tasks`] under one parent; a signal from
//! [`signals`] or the end of an essential task stops them all within a deadline. Meanwhile [`health`]
//! holds the health of the process, and [`trace`] carries trace context over its borders.
//!
//! This is the only crate that names OpenTelemetry. Retries with backoff and jitter are the business of
//! the `backon` crate; there is none here.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use quintet_service::health::Health;
//! use quintet_service::settings::{self, Secrecy, Setting, Settings};
//! use quintet_service::signals;
//! use quintet_service::tasks::{ExitPolicy, Tasks};
//! use quintet_service::telemetry::{self, TelemetryConfig, chain};
//!
//! const PORT: Setting = Setting {
//!     key: "port",
//!     env: "PORT",
//!     default: Some("8080"),
//!     help: "Where to listen",
//!     secret: Secrecy::Public,
//! };
//!
//! struct Config {
//!     port: u16,
//!     telemetry: TelemetryConfig,
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let table = [&[PORT], telemetry::SETTINGS].concat();
//! let settings = Settings::load(&table, None, settings::process_env, Default::default())?;
//! let mut read = settings.reader();
//! let port = read.parse("port");
//! read.check("port", port != 0, "must not be 0");
//! let telemetry = TelemetryConfig::read(&mut read, "greeter");
//! let config = read.finish(Config { port, telemetry })?;
//!
//! let telemetry = telemetry::init(config.telemetry)?;
//! let stop = signals::listen()?;
//! let health = Health::new("greeter");
//! let listener = health.component("listener");
//! let tasks = Tasks::new("greeter");
//! let token = tasks.token();
//! tasks.spawn("listener", ExitPolicy::Essential, async move {
//!     let socket = tokio::net::TcpListener::bind(("127.0.0.1", config.port)).await?;
//!     listener.ready();
//!     token.cancelled().await;
//!     drop(socket);
//!     Ok::<(), std::io::Error>(())
//! });
//!
//! tokio::select! {
//!     biased;
//!     () = stop.cancelled() => {}
//!     end = tasks.wait() => tracing::error!(error = %chain(&end), "stopping"),
//! }
//! let report = tasks.shutdown(Duration::from_secs(10)).await;
//! if !report.is_clean() {
//!     tracing::warn!(aborted = ?report.aborted, "some tasks did not end in time");
//! }
//! telemetry.shutdown().await?;
//! # Ok(())
//! # }
//! ```

pub mod health;
pub mod settings;
pub mod signals;
pub mod tasks;
pub mod telemetry;
pub mod trace;
