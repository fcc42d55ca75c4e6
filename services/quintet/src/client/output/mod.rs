//! Results for people: tables, times, and text with colours for the terminal.

pub(crate) mod table;
pub(crate) mod terminal;
