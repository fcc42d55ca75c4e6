//! API keys: `/v1/keys`. A key is shown once, in the answer that creates it; what is stored is its digest.
//!
//! The bucket belongs to all edges together: each writes by compare and swap, and watches what the others write. The first
//! key must be one that can create and revoke keys, and the last one of these cannot be revoked while others are left.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use data_encoding::BASE64URL_NOPAD;
use quintet_bus::{KvError, Revision, now};
use quintet_contract::access::{AccessKey, Permission, Permissions};
use quintet_contract::bucket::Access;
use quintet_contract::error::ErrorCode;
use quintet_contract::id::KeyName;
use quintet_contract::time::Timestamp;
use rand::RngCore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::identity::Caller;
use crate::access::key_table::MAX_STORED_KEYS;
use crate::access::keys::hash_of;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::extract::{JsonBody, PathId, path_ids};
use crate::state::App;

/// Bytes of a new key.
const KEY_BYTES: usize = 32;
/// Begins every key, so that it is recognised where it should not be.
const KEY_PREFIX: &str = "qk_";

/// A key, without the key itself.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyView {
    /// Its name.
    name: String,
    /// What it allows.
    permissions: Permissions,
    /// Where it comes from.
    source: KeySource,
    /// When it was created; not known of those in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    /// The key that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<KeyName>,
}

/// Where a key comes from.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum KeySource {
    /// The configuration of this edge; it is revoked by changing that.
    Configuration,
    /// It was created here.
    Stored,
}

/// A key that shall be created.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct NewKey {
    /// Its name: what is done with it is recorded under it.
    name: KeyName,
    /// What it allows.
    #[schemars(length(min = 1))]
    permissions: Vec<Permission>,
}

path_ids! {
    KeyName KeyPath;
}

/// A key that was created.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreatedKey {
    /// Its name.
    name: KeyName,
    /// What it allows.
    permissions: Permissions,
    /// The key. It is not stored, and never shown again.
    key: String,
}

/// A key was revoked.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Revoked {
    /// Always true.
    ok: bool,
}

pub(crate) async fn list(State(app): State<App>) -> Result<Json<Vec<KeyView>>, HttpError> {
    let configured = app.access.keys.table.configured().map(|caller| KeyView {
        name: caller.name.to_string(),
        permissions: caller.permissions,
        source: KeySource::Configuration,
        created_at: None,
        created_by: None,
    });
    let mut all: Vec<KeyView> = configured.collect();
    let mut stored = app.bus.bucket::<Access>().load().await?.entries;
    stored.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.extend(stored.into_iter().map(|(_, found)| KeyView {
        name: found.record.name.to_string(),
        permissions: found.record.permissions,
        source: KeySource::Stored,
        created_at: Some(found.record.created_at),
        created_by: found.record.created_by,
    }));
    Ok(Json(all))
}

pub(crate) fn list_docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .id("listKeys")
        .summary("List API keys")
        .description("The keys themselves are not stored. Needs the permission admin.")
        .tag("keys")
        .response::<200, Json<Vec<KeyView>>>()
}

pub(crate) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonBody(new, _): JsonBody<NewKey>,
) -> Result<(StatusCode, Json<CreatedKey>), HttpError> {
    let permissions: Permissions = new.permissions.into_iter().collect();
    if permissions.is_empty() {
        let text = "a key must have a permission: read, write, admin, inference or models:read";
        return Err(HttpError::invalid("permissions", text));
    }
    let table = &app.access.keys.table;
    if table.is_configured(new.name.as_str()) {
        return Err(taken(&new.name));
    }
    if !permissions.allows(Permission::Admin) && !hold_other_admin(&app, &new.name).await?.is_there
    {
        let text = "the first key must have the permission admin, since no other could be created after it; the set operator \
                    has it, and all that the command line needs";
        return Err(HttpError::invalid("permissions", text));
    }
    if table.stored_count() >= MAX_STORED_KEYS {
        let text = format!("there are {MAX_STORED_KEYS} keys; revoke some first");
        return Err(HttpError::new(ErrorCode::Conflict, text));
    }
    let mut key = [0; KEY_BYTES];
    rand::rng().fill_bytes(&mut key);
    let key = format!("{KEY_PREFIX}{}", BASE64URL_NOPAD.encode(&key));
    let record = AccessKey {
        name: new.name.clone(),
        hash: hash_of(key.as_bytes()),
        permissions,
        created_at: now(),
        created_by: caller.key.and_then(|_| KeyName::parse(&caller.name).ok()),
    };
    let bucket = app.bus.bucket::<Access>();
    let revision = match bucket.create(&new.name, &record, None).await {
        Ok(revision) => revision,
        Err(KvError::Conflict { .. }) => return Err(taken(&new.name)),
        Err(error) => return Err(error.into()),
    };
    // Good here at once; at other edges as soon as their watch brings it.
    table.put(new.name.clone(), Some(&record), revision);
    let created = CreatedKey {
        name: new.name,
        permissions,
        key,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// What is left beside a key.
struct OtherAdmin {
    /// Whether another key may create and revoke keys.
    is_there: bool,
    /// How many keys are stored.
    stored: usize,
}

/// Looks for another key that may create and revoke keys, and makes sure that it stays until this request is done: a stored
/// one is written again as it is, so that a revocation of it that was begun before fails by its revision. Otherwise two such
/// keys that are revoked at the same time, at one edge or at two, would both be gone.
async fn hold_other_admin(app: &App, name: &KeyName) -> Result<OtherAdmin, HttpError> {
    let table = &app.access.keys.table;
    let is_admin = |permissions: Permissions| permissions.allows(Permission::Admin);
    let bucket = app.bus.bucket::<Access>();
    let all = bucket.load().await?.entries;
    let stored = all.len();
    if table
        .configured()
        .any(|caller| is_admin(caller.permissions))
    {
        let is_there = true;
        return Ok(OtherAdmin { is_there, stored });
    }
    let other = all
        .into_iter()
        .find(|(other, found)| other != name && is_admin(found.record.permissions));
    let is_there = other.is_some();
    if let Some((other, found)) = other {
        let written = bucket.update(&other, &found.record, found.revision, None);
        table.put(other.clone(), Some(&found.record), written.await?);
    }
    Ok(OtherAdmin { is_there, stored })
}

fn taken(name: &KeyName) -> HttpError {
    let text = format!("there is a key of the name {name}; revoke it first, or take another name");
    HttpError::new(ErrorCode::Conflict, text)
}

pub(crate) fn create_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("createKey")
        .summary("Create an API key")
        .description(
            "The answer holds the key, which is not stored and never shown again. The first key must have the permission \
             admin. Needs the permission admin.",
        )
        .tag("keys")
        .response::<201, Json<CreatedKey>>()
        .response::<409, Json<ErrorBody>>()
}

pub(crate) async fn revoke(
    State(app): State<App>,
    PathId(name): PathId<KeyName>,
) -> Result<Json<Revoked>, HttpError> {
    let table = &app.access.keys.table;
    let bucket = app.bus.bucket::<Access>();
    let Some(found) = bucket.get(&name).await? else {
        if table.is_configured(name.as_str()) {
            let text = format!(
                "the key {name} is in the configuration; take it out of API_KEYS or ORCHESTRATOR_API_KEY"
            );
            return Err(HttpError::new(ErrorCode::Conflict, text));
        }
        return Err(HttpError::not_found());
    };
    if found.record.permissions.allows(Permission::Admin) {
        let other = hold_other_admin(&app, &name).await?;
        if !other.is_there && other.stored > 1 {
            let text = format!(
                "{name} is the last key with the permission admin; create another one, or revoke it last"
            );
            return Err(HttpError::new(ErrorCode::Conflict, text));
        }
    }
    bucket.delete(&name, Some(found.revision)).await?;
    // The deletion is newer than what it deletes.
    table.put(name, None, Revision(found.revision.0 + 1));
    Ok(Json(Revoked { ok: true }))
}

pub(crate) fn revoke_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("revokeKey")
        .summary("Revoke an API key")
        .description(
            "It opens nothing from now on, nor do the tickets and sessions that were made of it; streams that are open continue. \
             Needs the permission admin.",
        )
        .tag("keys")
        .response::<200, Json<Revoked>>()
        .response::<409, Json<ErrorBody>>()
}
