//! Plans: their validation ([`check`]), and their preview ([`view`]).

mod check;
mod graph;
mod problems;
mod read;
mod view;

pub(crate) use check::{checked, wait};
pub(crate) use view::{queue_of, view};
