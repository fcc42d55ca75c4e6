//! A connection to the bus for commands that inspect it.

use std::path::Path;
use std::time::Duration;

use quintet_bus::{Bus, Credentials, Secret};
use quintet_contract::permission::Role;
use tokio::time::timeout;

use crate::cli::exit::{self, Failure};
use crate::client::connection::connection_of;
use crate::settings::nats::NatsSettings;

/// How long NATS may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection as a person would have it: by the settings, else to the server of a running `up`.
pub(crate) async fn connect(nats: &NatsSettings, data_dir: &Path) -> anyhow::Result<Bus> {
    let mut settings = nats.bus.clone();
    if nats.url.is_none() {
        let Some(found) = connection_of(data_dir) else {
            let text = format!(
                "there is no NATS to connect to: name one with --nats-url, or start `quintet up` (nothing runs in {})",
                data_dir.display()
            );
            return Err(Failure::new(exit::UNREACHABLE, text).into());
        };
        let user = Role::Operator.user();
        let password = Secret::new(found.users.get(&user).cloned().unwrap_or_default());
        settings.url = found.url;
        settings.credentials = Credentials::UserPassword { user, password }.into();
    }
    let connected = timeout(TIMEOUT, Bus::connect(settings.config(&Role::Edge))).await;
    Ok(connected.map_err(|_| Failure::new(exit::UNREACHABLE, "NATS does not answer"))??)
}
