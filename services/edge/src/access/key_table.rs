//! Key table: every API key that is good here, and what each allows.
//!
//! One table of two sources: the keys of the configuration, and those of the bucket `access`, of which this edge watches a
//! copy. What a key allows is looked up for every request, by the digest of the key, or by the digest that a ticket or a
//! session names; so a revoked key takes everything with it that was made of it. A name stands for one key: a stored key
//! whose name is configured as well is not used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use quintet_bus::{Bus, Change, KvError, Revision, WatchFrom};
use quintet_contract::access::{AccessKey, KeyHash};
use quintet_contract::bucket::Access;
use quintet_contract::id::KeyName;
use quintet_service::health::ComponentHandle;
use quintet_service::telemetry::chain;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::access::identity::Caller;
use crate::access::keys::ApiKey;

/// Most keys that are stored; each request with a key is compared with all.
pub(crate) const MAX_STORED_KEYS: usize = 1000;
/// Wait before the bucket is watched again after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Every key that is good here; clones are the same table.
#[derive(Clone, Debug)]
pub(crate) struct KeyTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    configured: Vec<Entry>,
    stored: RwLock<BTreeMap<KeyName, Stored>>,
    /// Whether the bucket was read once.
    is_loaded: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
struct Entry {
    hash: KeyHash,
    caller: Caller,
}

/// What is known of a name in the bucket; a deletion is remembered, so that an older write does not undo it.
#[derive(Clone, Debug)]
struct Stored {
    revision: Revision,
    entry: Option<Entry>,
}

/// Whether a request needs a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyPolicy {
    /// It does.
    Required,
    /// There is no key.
    Open,
    /// No key is configured, and the bucket was not read yet.
    Unknown,
}

impl KeyTable {
    pub(crate) fn new(configured: &[ApiKey]) -> Self {
        let entry = |key: &ApiKey| Entry {
            hash: key.hash(),
            caller: Caller::of_key(&key.name, key.permissions, key.hash()),
        };
        Self(Arc::new(Inner {
            configured: configured.iter().map(entry).collect(),
            stored: RwLock::default(),
            is_loaded: watch::Sender::new(false),
        }))
    }

    /// Whether requests need a key now.
    pub(crate) fn policy(&self) -> KeyPolicy {
        let stored = self.0.stored.read().unwrap_or_else(PoisonError::into_inner);
        let has_key =
            !self.0.configured.is_empty() || stored.values().any(|stored| stored.entry.is_some());
        match (has_key, *self.0.is_loaded.borrow()) {
            (true, _) => KeyPolicy::Required,
            (false, true) => KeyPolicy::Open,
            (false, false) => KeyPolicy::Unknown,
        }
    }

    /// Whose key has this digest.
    pub(crate) fn find(&self, hash: KeyHash) -> Option<Caller> {
        let stored = self.0.stored.read().unwrap_or_else(PoisonError::into_inner);
        let stored = stored
            .iter()
            .filter(|(name, _)| !self.is_configured(name.as_str()))
            .filter_map(|(_, stored)| stored.entry.as_ref());
        // Every key is compared, so that the time does not reveal which one was nearly right.
        let found = self
            .0
            .configured
            .iter()
            .chain(stored)
            .fold(None, |found, entry| {
                let is_same = bool::from(entry.hash.0.ct_eq(&hash.0));
                if is_same { Some(entry) } else { found }
            });
        found.map(|entry| entry.caller.clone())
    }

    /// Whether a key of the configuration has this name.
    pub(crate) fn is_configured(&self, name: &str) -> bool {
        self.0
            .configured
            .iter()
            .any(|entry| &*entry.caller.name == name)
    }

    /// The callers that the keys of the configuration stand for.
    pub(crate) fn configured(&self) -> impl Iterator<Item = &Caller> {
        self.0.configured.iter().map(|entry| &entry.caller)
    }

    /// How many keys are stored.
    pub(crate) fn stored_count(&self) -> usize {
        let stored = self.0.stored.read().unwrap_or_else(PoisonError::into_inner);
        stored
            .values()
            .filter(|stored| stored.entry.is_some())
            .count()
    }

    /// Takes over a key as it is stored; none when it is revoked. What is older than what is known changes nothing.
    pub(crate) fn put(&self, name: KeyName, key: Option<&AccessKey>, revision: Revision) {
        let entry = key.map(|key| Entry {
            hash: key.hash,
            caller: Caller::of_key(key.name.as_str(), key.permissions, key.hash),
        });
        let mut stored = self
            .0
            .stored
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let is_older = stored
            .get(&name)
            .is_some_and(|known| known.revision > revision);
        if !is_older {
            stored.insert(name, Stored { revision, entry });
        }
    }

    #[cfg(test)]
    pub(crate) fn put_loaded_for_test(&self) {
        self.0.is_loaded.send_replace(true);
    }

    /// Waits until the bucket was read once. Cancel-safe.
    pub(crate) async fn loaded(&self) {
        // The sender exists as long as this table.
        let _ = self
            .0
            .is_loaded
            .subscribe()
            .wait_for(|is_loaded| *is_loaded)
            .await;
    }

    /// Follows the bucket until `shutdown`; without the bus what was read last holds.
    pub(crate) async fn follow(
        self,
        bus: Bus,
        health: ComponentHandle,
        shutdown: CancellationToken,
    ) {
        loop {
            let ended = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                ended = self.watch(&bus, &health) => ended,
            };
            match ended {
                // An installation of before has no such bucket, and so no stored key.
                Err(KvError::NoBucket { bucket }) => {
                    debug!(bucket, "there is no bucket of keys yet");
                    self.0.is_loaded.send_replace(true);
                    health.ready();
                }
                Err(error) => warn!(error = %chain(&error), "watches the keys again"),
                Ok(()) => debug!("watches the keys again"),
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY_DELAY) => {}
            }
        }
    }

    async fn watch(&self, bus: &Bus, health: &ComponentHandle) -> Result<(), KvError> {
        let mut changes = bus.bucket::<Access>().watch(WatchFrom::Start).await?;
        // A key whose deletion was missed is one that is not among what is stored.
        let mut seen = Some(BTreeSet::new());
        while let Some(change) = changes.next().await {
            match change? {
                Change::Put {
                    key,
                    revision,
                    record,
                    ..
                } => {
                    if let Some(seen) = &mut seen {
                        seen.insert(key.clone());
                    }
                    self.put(key, Some(&record), revision);
                }
                Change::Gone { key, revision } => self.put(key, None, revision),
                Change::UpToDate => {
                    if let Some(seen) = seen.take() {
                        let mut stored = self
                            .0
                            .stored
                            .write()
                            .unwrap_or_else(PoisonError::into_inner);
                        stored.retain(|name, _| seen.contains(name));
                    }
                    self.0.is_loaded.send_replace(true);
                    health.ready();
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::access::Permissions;
    use quintet_contract::time::Timestamp;

    use super::*;
    use crate::access::identity::Role;
    use crate::access::keys::hash_of;

    fn name(text: &str) -> KeyName {
        KeyName::parse(text).unwrap()
    }

    fn stored(text: &str, key: &str, permissions: Permissions) -> AccessKey {
        AccessKey {
            name: name(text),
            hash: hash_of(key.as_bytes()),
            permissions,
            created_at: Timestamp::from_millis(0),
            created_by: None,
        }
    }

    fn who(table: &KeyTable, key: &str) -> Option<String> {
        let caller = table.find(hash_of(key.as_bytes()));
        caller.map(|caller| format!("{} {}", caller.name, caller.permissions))
    }

    #[test]
    fn configured_and_stored_keys_are_one_table() {
        let table = KeyTable::new(&[ApiKey::new("oz", Role::Operator, "work")]);
        assert_eq!(table.policy(), KeyPolicy::Required);
        let eve = stored("eve", "look", Permissions::VIEWER);
        table.put(name("eve"), Some(&eve), Revision(2));
        assert_eq!(who(&table, "look").as_deref(), Some("eve read,models:read"));
        assert!(who(&table, "work").unwrap().starts_with("oz read,write"));
        assert_eq!(who(&table, "wrong"), None);
        table.put(name("eve"), None, Revision(4));
        assert_eq!(who(&table, "look"), None, "it is revoked");
        table.put(name("eve"), Some(&eve), Revision(3));
        assert_eq!(who(&table, "look"), None, "what is older changes nothing");
        let oz = stored("oz", "other", Permissions::VIEWER);
        table.put(name("oz"), Some(&oz), Revision(5));
        assert_eq!(who(&table, "other"), None, "its name is configured");
        assert!(who(&table, "work").is_some());
    }

    #[test]
    fn without_a_key_it_is_open_but_not_before_the_bucket_was_read() {
        let table = KeyTable::new(&[]);
        assert_eq!(table.policy(), KeyPolicy::Unknown);
        table.0.is_loaded.send_replace(true);
        assert_eq!(table.policy(), KeyPolicy::Open);
        let eve = stored("eve", "look", Permissions::OPERATOR);
        table.put(name("eve"), Some(&eve), Revision(1));
        assert_eq!(table.policy(), KeyPolicy::Required);
        table.put(name("eve"), None, Revision(2));
        assert_eq!(table.policy(), KeyPolicy::Open);
    }
}
