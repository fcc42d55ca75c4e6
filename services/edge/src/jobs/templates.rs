//! Stored job templates.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use quintet_contract::JsonObject;
use quintet_contract::api::{Done, PutTemplate, TemplateRef};
use quintet_contract::capability::Requirements;
use quintet_contract::id::TemplateId;
use quintet_contract::template::Template;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::HttpError;
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::extract::{JsonBody, PathId};
use crate::jobs::client::JobsClient;

pub(crate) async fn list(State(jobs): State<JobsClient>) -> Result<Json<Vec<Template>>, HttpError> {
    Ok(Json(jobs.templates().await?.templates))
}

pub(crate) fn list_docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .id("listTemplates")
        .summary("List templates")
        .tag("templates")
        .response::<200, Json<Vec<Template>>>()
}

pub(crate) async fn get(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<TemplateId>,
) -> Result<Json<Template>, HttpError> {
    Ok(Json(jobs.template(&TemplateRef { id }).await?.template))
}

pub(crate) fn get_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("getTemplate")
        .summary("Get a template")
        .tag("templates")
        .response::<200, Json<Template>>()
}

/// A template as clients send it. Of one that was read here before, the id and the times are ignored: the path and the
/// service report them.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewTemplate {
    /// Its display name.
    name: Option<String>,
    /// The executor that runs it: `exec`, `ffmpeg`, `noop`, or one that an agent brings along.
    #[schemars(regex(pattern = r"\S"))]
    executor: String,
    /// The executor's configuration with `{{param}}` places in any string.
    #[serde(default)]
    config: JsonObject,
    /// Values for places that a job does not name.
    #[serde(default)]
    defaults: JsonObject,
    /// What it requires of an agent.
    #[serde(default)]
    requirements: Requirements,
}

pub(crate) async fn put(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<TemplateId>,
    JsonBody(new, _): JsonBody<NewTemplate>,
) -> Result<(StatusCode, Json<Template>), HttpError> {
    let template = named(id, new)?;
    let reply = jobs.put_template(&PutTemplate { template }).await?;
    let status = if reply.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(reply.template)))
}

/// The template of a body, checked; the path holds its id.
pub(crate) fn named(id: TemplateId, new: NewTemplate) -> Result<Template, HttpError> {
    let NewTemplate {
        name,
        executor,
        config,
        defaults,
        requirements,
    } = new;
    let template = Template {
        id,
        name,
        executor,
        config,
        defaults,
        requirements,
        created_at: None,
        updated_at: None,
    };
    template.check()?;
    Ok(template)
}

pub(crate) fn put_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(with_body(operation))
        .id("putTemplate")
        .summary("Store a template")
        .description(
            "Names an executor, its configuration with `{{param}}` places, values for places that a job does not name, \
             and requirements. An id of more than 128 bytes or with control characters is answered 404.",
        )
        .tag("templates")
        .response_with::<201, Json<Template>, _>(|response| response.description("there was none under this id"))
        .response_with::<200, Json<Template>, _>(|response| response.description("it was replaced"))
        .response::<409, Json<crate::error::ErrorBody>>()
}

pub(crate) async fn delete(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<TemplateId>,
) -> Result<Json<Done>, HttpError> {
    Ok(Json(jobs.delete_template(&TemplateRef { id }).await?))
}

pub(crate) fn delete_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("deleteTemplate")
        .summary("Delete a template")
        .tag("templates")
        .response::<200, Json<Done>>()
}
