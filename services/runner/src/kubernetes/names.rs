//! Names of the Jobs of nodes, within the rules of Kubernetes: a name is a DNS label of at most 63 characters, and so
//! is nearly every value of a label.
//!
//! Ids of nodes are longer and freer (`each[0].step`), so a name holds what can be read of the id and a hash of run and
//! node; the exact id is in an annotation.

use std::collections::BTreeMap;

use data_encoding::BASE32_DNSSEC;
use quintet_contract::id::{NodeId, RunId};
use quintet_contract::job::Attempt;
use sha2::{Digest, Sha256};

/// Label with the id of the run.
pub(super) const RUN_LABEL: &str = "quintet/run";
/// Label with the id of the node, or with what can be read of it and a hash.
pub(super) const NODE_LABEL: &str = "quintet/node";
/// Label with the attempt.
pub(super) const ATTEMPT_LABEL: &str = "quintet/attempt";
/// Annotation with the id of the node as it is.
pub(super) const NODE_ANNOTATION: &str = "quintet/node-id";
/// Longest value of a label.
const MAX_LABEL: usize = 63;
/// How much of a node's id is shown in the name of a Job.
const SHOWN_IN_NAME: usize = 20;

/// The name of the Job of one attempt of one node: at most 62 characters, and another one for every other.
pub(super) fn job_name(run: RunId, node: &NodeId, attempt: Attempt) -> String {
    let hash = hash(&[run.uuid().as_bytes(), node.as_str().as_bytes()]);
    let shown = readable(node.as_str(), SHOWN_IN_NAME);
    if shown.is_empty() {
        return format!("run-{hash}-{attempt}");
    }
    format!("run-{shown}-{hash}-{attempt}")
}

/// The labels of a Job and of its pod.
pub(super) fn labels(run: RunId, node: &NodeId, attempt: Attempt) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "quintet".to_owned(),
        ),
        (RUN_LABEL.to_owned(), run.to_string()),
        (NODE_LABEL.to_owned(), node_label(node)),
        (ATTEMPT_LABEL.to_owned(), attempt.to_string()),
    ])
}

fn node_label(node: &NodeId) -> String {
    let id = node.as_str();
    if is_label_value(id) {
        return id.to_owned();
    }
    let hash = hash(&[id.as_bytes()]);
    let shown = readable(id, MAX_LABEL - 1 - hash.len());
    if shown.is_empty() {
        return hash;
    }
    format!("{shown}-{hash}")
}

/// Whether Kubernetes takes a text as the value of a label.
pub(super) fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    text.len() <= MAX_LABEL
        && bytes.iter().all(is_inner)
        && bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
}

/// 128 bits as 26 lower-case letters and digits.
fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    BASE32_DNSSEC.encode(&hasher.finalize()[..16])
}

/// At most `max` lower-case letters, digits and single dashes, beginning and ending with none of the dashes.
fn readable(id: &str, max: usize) -> String {
    let mut shown = String::new();
    for byte in id.bytes() {
        if shown.len() == max {
            break;
        }
        if byte.is_ascii_alphanumeric() {
            shown.push(char::from(byte.to_ascii_lowercase()));
        } else if !shown.is_empty() && !shown.ends_with('-') {
            shown.push('-');
        }
    }
    shown.truncate(shown.trim_end_matches('-').len());
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn run() -> RunId {
        RunId::from_uuid(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0007))
    }

    fn node(id: &str) -> NodeId {
        NodeId::parse(id).unwrap()
    }

    fn is_dns_label(name: &str) -> bool {
        let bytes = name.as_bytes();
        let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        (1..=63).contains(&name.len())
            && bytes.iter().all(|byte| is_inner(byte) || *byte == b'-')
            && bytes.first().is_some_and(is_inner)
            && bytes.last().is_some_and(is_inner)
    }

    #[test]
    fn a_name_shows_what_can_be_read_of_the_node() {
        let name = job_name(run(), &node("Each[0].Transcode_720p"), Attempt(2));
        assert_eq!(
            name,
            "run-each-0-transcode-720-mbcrjoa8id01td1ri3j3c41vnc-2"
        );
        let name = job_name(run(), &node("__"), Attempt(1));
        assert_eq!(name.len(), "run-".len() + 26 + "-1".len());
    }

    #[test]
    fn an_id_that_is_no_value_of_a_label_gets_a_hash() {
        assert_eq!(node_label(&node("fetch_1.A")), "fetch_1.A");
        assert!(node_label(&node("each[0].a")).starts_with("each-0-a-"));
        assert_ne!(
            node_label(&node("each[0].a")),
            node_label(&node("each[0]_a"))
        );
    }

    proptest! {
        #[test]
        fn names_and_labels_are_ones_that_kubernetes_takes(id in "[A-Za-z0-9_.\\[\\]-]{1,128}", attempt: u32) {
            let node = node(&id);
            let name = job_name(run(), &node, Attempt(attempt));
            prop_assert!(is_dns_label(&name), "{}", name);
            for value in labels(run(), &node, Attempt(attempt)).values() {
                prop_assert!(is_label_value(value), "{}", value);
            }
        }

        #[test]
        fn two_nodes_never_share_a_name(a in "[A-Ca-c_.\\[\\]-]{1,8}", b in "[A-Ca-c_.\\[\\]-]{1,8}") {
            prop_assume!(a != b);
            let name = |id| job_name(run(), &node(id), Attempt(1));
            prop_assert_ne!(name(&a), name(&b));
            prop_assert_ne!(node_label(&node(&a)), node_label(&node(&b)));
        }
    }
}
