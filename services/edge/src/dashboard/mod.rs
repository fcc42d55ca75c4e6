//! The dashboard at `/`: one file without external resources.

use std::sync::LazyLock;

use crate::access::policy::Access;
use crate::http::page::Page;
use crate::http::route::{Kind, Routes};
use crate::state::App;

/// The page.
pub(crate) fn kind() -> Kind<App> {
    static PAGE: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("dashboard.html")));
    let page = async || &*PAGE;
    Kind::new("dashboard", Routes::new().page("/", Access::Public, page))
}
