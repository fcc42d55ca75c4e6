//! Plans: what is wrong with one ([`check`]), and what one would do ([`view`]).

mod check;
mod view;

pub(crate) use check::{checked, wait};
pub(crate) use view::{queue_of, view};
