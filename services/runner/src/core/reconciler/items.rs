//! Nodes of kind `foreach`: their items, and the nodes that each item has.

use quintet_contract::JsonObject;
use quintet_contract::id::NodeId;
use quintet_contract::job::Attempt;
use quintet_contract::plan::{MAX_ITEMS, Node};
use quintet_contract::run::{MAX_OUTPUTS_BYTES, NodeEvent, NodeStatus};
use serde_json::Value;

use super::{Nesting, Pass, Reconciler};
use crate::core::active::bytes_of;
use crate::core::template;

/// Most nodes of a run, those of every item of a foreach counted.
const MAX_STATES: usize = 2_000;

impl Reconciler<'_> {
    pub(super) fn items(&self, node: &Node, nesting: &Nesting) -> Result<Vec<Value>, String> {
        let items = node.items.as_ref().unwrap_or(&Value::Null);
        let Value::Array(items) = template::filled(items, &self.scope(nesting))? else {
            return Err("items is no list".to_owned());
        };
        let states = self.active.states().count() + items.len() * node.nodes.len();
        if items.len() > MAX_ITEMS || states > MAX_STATES {
            return Err(format!(
                "a foreach may have {MAX_ITEMS} items and a run {MAX_STATES} nodes; here are {} items with {} nodes each",
                items.len(),
                node.nodes.len()
            ));
        }
        let bytes: usize = items.iter().map(bytes_of).sum();
        if self.active.weight + bytes > MAX_OUTPUTS_BYTES {
            return Err(format!(
                "the items take {bytes} bytes, which is more than a run can hold"
            ));
        }
        Ok(items)
    }

    pub(super) fn visit_items(
        &mut self,
        node: &Node,
        id: &NodeId,
        nesting: &Nesting,
        pass: &mut Pass,
    ) {
        let items = self.active.private(id.as_str());
        let items = items
            .and_then(|private| private.items.clone())
            .unwrap_or_default();
        let limit = node.max_parallel.map_or(usize::MAX, |limit| limit as usize);
        let (mut open, mut failed, mut ended) = (0, None, 0);
        for (index, item) in items.iter().enumerate() {
            if open >= limit {
                break;
            }
            let mut outer = nesting.outer.clone();
            outer.push(nesting.prefix.clone());
            let inner = Nesting {
                prefix: format!("{id}[{index}]."),
                item: Some((item.clone(), index)),
                outer,
            };
            let mut of_item = Pass {
                at_work: pass.at_work,
                limit: pass.limit,
                ..Pass::default()
            };
            self.visit(&node.nodes, &inner, &mut of_item);
            pass.at_work = of_item.at_work;
            pass.has_changed |= of_item.has_changed;
            if let Some(due) = of_item.due {
                pass.due_at(due);
            }
            failed = failed.or(of_item.failed);
            let is_ended = node.nodes.iter().all(|step| {
                self.status_of(&format!("{}{}", inner.prefix, step.id))
                    .is_final()
            });
            if is_ended {
                ended += 1;
            } else {
                open += 1;
            }
        }
        if ended < items.len() {
            pass.failed = pass.failed.take().or(failed);
            return;
        }
        pass.has_changed = true;
        if let Some(failed) = failed {
            self.fail(id, Attempt(1), failed);
            return;
        }
        let outputs = (0..items.len()).map(|index| {
            let steps = node.nodes.iter().filter_map(|step| {
                let state = self.active.state(&format!("{id}[{index}].{}", step.id))?;
                Some((step.id.clone(), Value::Object(state.output.clone()?)))
            });
            Value::Object(steps.collect())
        });
        let outputs = Value::Array(outputs.collect());
        if self.active.weight + bytes_of(&outputs) > MAX_OUTPUTS_BYTES {
            let text = format!(
                "the outputs of its items take {} bytes, which is more than a run can hold",
                bytes_of(&outputs)
            );
            self.fail(id, Attempt(1), text);
            return;
        }
        self.node(NodeEvent {
            status: NodeStatus::Succeeded,
            output: Some(JsonObject::from_iter([("items".to_owned(), outputs)])),
            ..self.fact(id)
        });
    }
}
