//! The templates service: any scheduler answers, leader or not. The bucket is the truth, nothing is kept here.

use futures::StreamExt;
use quintet_bus::{BucketHandle, Bus, KvError, Revision, now};
use quintet_contract::api::{Done, PutTemplate, TemplateList, TemplateRef, TemplateReply};
use quintet_contract::bucket::Templates;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::subject::{
    DeleteTemplate, GetTemplate, ListStoredTemplates, PutStoredTemplate,
};
use quintet_contract::template::Template;
use quintet_service::telemetry::chain;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::Error;

/// Tries of a write that lost against another.
const MAX_ATTEMPTS: u32 = 5;
/// Most bytes of one template as JSON: it must fit a message of the bus with room to spare.
const MAX_BYTES: usize = 256 * 1024;

/// Most templates.
const MAX_TEMPLATES: usize = 1000;
/// Most bytes of all templates as JSON: their list must fit a message of the bus.
const MAX_BYTES_OF_ALL: usize = 900 * 1024;

/// Serves until `shutdown`.
pub(crate) async fn serve(bus: Bus, shutdown: CancellationToken) -> Result<(), Error> {
    let failed = quintet_leader::Error::subscribing;
    let micro = bus
        .micro("templates", "stored job templates: list, get, put, delete")
        .await;
    let micro = micro.map_err(failed("the templates service"))?;
    let mut lists = micro
        .endpoint("list", &ListStoredTemplates {})
        .await
        .map_err(failed("list"))?;
    let mut gets = micro
        .endpoint("get", &GetTemplate {})
        .await
        .map_err(failed("get"))?;
    let mut puts = micro
        .endpoint("put", &PutStoredTemplate {})
        .await
        .map_err(failed("put"))?;
    let mut deletes = micro
        .endpoint("delete", &DeleteTemplate {})
        .await
        .map_err(failed("delete"))?;
    let templates = bus.bucket::<Templates>();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(request) = gets.next() => answer(request.responder, get(&templates, &request.message).await).await,
            Some(request) = lists.next() => answer(request.responder, list(&templates).await).await,
            Some(request) = puts.next() => answer(request.responder, put(&templates, request.message).await).await,
            Some(request) = deletes.next() => answer(request.responder, delete(&templates, &request.message).await).await,
            else => break,
        }
    }
    micro.stop().await;
    Ok(())
}

async fn answer<R: serde::Serialize>(
    to: quintet_bus::Responder<R>,
    outcome: Result<R, ErrorReply>,
) {
    match outcome {
        Ok(reply) => to.ok(&reply).await,
        Err(error) => to.err(&error).await,
    }
}

async fn list(templates: &BucketHandle<Templates>) -> Result<TemplateList, ErrorReply> {
    let loaded = templates
        .load()
        .await
        .map_err(|error| unavailable(&error))?;
    let mut templates: Vec<Template> = loaded
        .entries
        .into_iter()
        .map(|(_, found)| found.record)
        .collect();
    templates.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(TemplateList { templates })
}

async fn get(
    templates: &BucketHandle<Templates>,
    wanted: &TemplateRef,
) -> Result<TemplateReply, ErrorReply> {
    match templates.get(&wanted.id).await {
        Ok(Some(found)) => Ok(TemplateReply {
            template: found.record,
            created: false,
        }),
        Ok(None) => Err(ErrorReply::not_found()),
        Err(error) => Err(unavailable(&error)),
    }
}

async fn put(
    templates: &BucketHandle<Templates>,
    wanted: PutTemplate,
) -> Result<TemplateReply, ErrorReply> {
    let PutTemplate { mut template } = wanted;
    template.check()?;
    let bytes = serde_json::to_vec(&template).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_BYTES {
        let text = format!("a template may take {MAX_BYTES} bytes as JSON, this one takes {bytes}");
        return Err(ErrorReply::new(ErrorCode::PayloadTooLarge, text));
    }
    check_room(templates, &template, bytes).await?;
    for _ in 0..MAX_ATTEMPTS {
        let found = templates
            .get(&template.id)
            .await
            .map_err(|error| unavailable(&error))?;
        let (revision, created_at) = match &found {
            Some(found) => (found.revision, found.record.created_at),
            None => (Revision::default(), None),
        };
        template.updated_at = Some(now());
        template.created_at = created_at.or(template.updated_at);
        match templates
            .update(&template.id, &template, revision, None)
            .await
        {
            Ok(_) => {
                return Ok(TemplateReply {
                    template,
                    created: found.is_none(),
                });
            }
            Err(KvError::Conflict { .. }) => {}
            Err(error) => return Err(unavailable(&error)),
        }
    }
    Err(ErrorReply::new(
        ErrorCode::Conflict,
        "another client keeps changing this template; read it and try again",
    ))
}

/// Whether this template fits beside the others.
async fn check_room(
    templates: &BucketHandle<Templates>,
    template: &Template,
    bytes: usize,
) -> Result<(), ErrorReply> {
    let others = list(templates).await?.templates;
    let others = others.iter().filter(|other| other.id != template.id);
    let sizes = others.map(|other| serde_json::to_vec(other).map_or(0, |json| json.len()));
    let (count, all) = sizes.fold((1, bytes), |(count, all), size| (count + 1, all + size));
    if count <= MAX_TEMPLATES && all <= MAX_BYTES_OF_ALL {
        return Ok(());
    }
    let text = format!(
        "{MAX_TEMPLATES} templates with {MAX_BYTES_OF_ALL} bytes as JSON are the most, with this one there would be \
         {count} with {all}; delete some first"
    );
    Err(ErrorReply::new(ErrorCode::PayloadTooLarge, text))
}

async fn delete(
    templates: &BucketHandle<Templates>,
    wanted: &TemplateRef,
) -> Result<Done, ErrorReply> {
    get(templates, wanted).await?;
    templates
        .delete(&wanted.id, None)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(Done { ok: true })
}

fn unavailable(error: &KvError) -> ErrorReply {
    warn!(error = %chain(error), "cannot reach the templates");
    ErrorReply::unavailable(
        "the templates cannot be reached now; send the same request again in a moment",
    )
}
