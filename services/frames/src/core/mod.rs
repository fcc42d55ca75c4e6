//! What becomes of the frames that workers send.

mod bucket;
mod ingest;

pub use bucket::Bucket;
pub use ingest::{Counts, Forwarded, Ingest, Outcome};
