//! Payloads of checkpoints that are too large for messages: offloaded to the object store before the runner gets the
//! checkpoint, and rehydrated before a client does.

use quintet_bus::{Bus, Encoding, encode};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::run::{MAX_INLINE_BYTES, RunEvent};
use quintet_contract::run_api::AddCheckpoint;
use quintet_service::telemetry::chain;
use tracing::warn;

use crate::error::HttpError;

/// The data as it is stored, if it is too large for a message.
pub(crate) fn needs_offload(add: &AddCheckpoint) -> Result<Option<Vec<u8>>, HttpError> {
    let Some(data) = &add.data else {
        return Ok(None);
    };
    let defect = |error: String| HttpError::new(ErrorCode::Internal, error);
    let text = serde_json::to_vec(data).map_err(|error| defect(error.to_string()))?;
    // On the bus small numbers are shorter than in JSON, and others longer.
    let packed = encode(data, Encoding::default()).map_err(|error| defect(error.to_string()))?;
    let is_large = text.len().max(packed.len()) > MAX_INLINE_BYTES;
    Ok(is_large.then_some(text))
}

/// Stores the data apart.
pub(crate) async fn offload(
    bus: &Bus,
    add: AddCheckpoint,
    data: &[u8],
) -> Result<AddCheckpoint, HttpError> {
    let name = add.checkpoint_id.to_string();
    if let Err(error) = bus.put_blob(&name, data).await {
        warn!(error = %chain(&error), "cannot store the data of a checkpoint");
        let text = "the data cannot be stored now; send the same request again in a moment";
        return Err(ErrorReply::unavailable(text).into());
    }
    Ok(AddCheckpoint {
        data: None,
        blob: Some(name),
        ..add
    })
}

/// Puts the data of a checkpoint in its place. When it is no longer kept, its name stays.
pub(crate) async fn rehydrate(bus: &Bus, fact: &mut RunEvent) -> Result<(), HttpError> {
    let RunEvent::Checkpoint { checkpoint } = fact else {
        return Ok(());
    };
    let Some(name) = &checkpoint.blob else {
        return Ok(());
    };
    let read = bus.blob(name).await.map_err(|error| {
        warn!(error = %chain(&error), "cannot read the data of a checkpoint");
        ErrorReply::unavailable(
            "the data of a checkpoint cannot be read now; try again in a moment",
        )
    })?;
    let data = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if data.is_some() {
        checkpoint.data = data;
        checkpoint.blob = None;
    }
    Ok(())
}
