//! Blobs, values that are too large for a message: kept in the object store of NATS, in parts, under a name that is used once.

use async_nats::jetstream::object_store::{GetErrorKind, ObjectStore};
use bytes::Bytes;
use quintet_contract::topology::stream;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::connect::{API_TIMEOUT, Bus};
use crate::error::{BlobError, Cause};

impl Bus {
    /// Stores a large value.
    ///
    /// # Errors
    /// [`BlobError`] when the object store is missing or does not confirm the value.
    pub async fn put_blob(&self, name: &str, value: &[u8]) -> Result<(), BlobError> {
        let failed = failed("store", name);
        let storing = async {
            let mut value = value;
            let store = self.blobs().await?;
            let stored = store.put(name, &mut value).await;
            stored.map(|_| ()).map_err(Cause::from)
        };
        match timeout(API_TIMEOUT, storing).await {
            Ok(stored) => stored.map_err(failed),
            Err(elapsed) => Err(failed(elapsed.into())),
        }
    }

    /// Reads a large value; `None` when it is not there, or no longer.
    ///
    /// # Errors
    /// [`BlobError`] when the object store is missing or cannot be read.
    pub async fn blob(&self, name: &str) -> Result<Option<Bytes>, BlobError> {
        let failed = failed("read", name);
        let reading = async {
            let store = self.blobs().await?;
            let mut value = match store.get(name).await {
                Ok(value) => value,
                Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let mut bytes = Vec::new();
            value.read_to_end(&mut bytes).await?;
            Ok::<_, Cause>(Some(Bytes::from(bytes)))
        };
        match timeout(API_TIMEOUT, reading).await {
            Ok(read) => read.map_err(failed),
            Err(elapsed) => Err(failed(elapsed.into())),
        }
    }

    async fn blobs(&self) -> Result<ObjectStore, Cause> {
        let store = stream::blobs(self.prefix());
        let store = self.jetstream().get_object_store(store).await;
        store.map_err(Cause::from)
    }
}

fn failed(attempt: &'static str, name: &str) -> impl FnOnce(Cause) -> BlobError {
    let name = name.to_owned();
    move |source| BlobError {
        attempt,
        name,
        source,
    }
}
