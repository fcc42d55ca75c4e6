//! Pages: HTML that is served with the headers which keep it to itself.
//!
//! Nothing is loaded from elsewhere, no other page may frame it, and only the scripts and styles that are in the file run: the
//! policy names each by its digest, so that a text that gets into the page by mistake is not executed.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// A page and its policy.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    html: &'static str,
    policy: HeaderValue,
}

impl Page {
    /// A page whose scripts and styles are elements of its own, without attributes.
    pub(crate) fn new(html: &'static str) -> Self {
        let (scripts, styles) = (sources(html, "script"), sources(html, "style"));
        let policy = format!(
            "default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' data:; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::from_str(&policy).expect("digests are plain ASCII");
        Self { html, policy }
    }
}

impl IntoResponse for &Page {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_SECURITY_POLICY, self.policy.clone()),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
            (
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            ),
            // For browsers that know no frame-ancestors.
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                HeaderValue::from_static("same-origin"),
            ),
        ];
        (headers, Html(self.html)).into_response()
    }
}

/// The digests of all elements of this name, as a policy lists them.
fn sources(html: &str, element: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let contents = html
        .split(&begin)
        .skip(1)
        .filter_map(|rest| rest.split_once(&end));
    let digest = |(content, _): (&str, &str)| {
        let digest = BASE64.encode(&Sha256::digest(content.as_bytes()));
        format!("'sha256-{digest}'")
    };
    let digests: Vec<String> = contents.map(digest).collect();
    match digests.as_slice() {
        [] => "'none'".to_owned(),
        digests => digests.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_each_script_and_style_by_its_digest() {
        let page =
            Page::new("<style>a{}</style><p>x</p><script>alert(1)</script><script>2</script>");
        let response = (&page).into_response();
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        let of = |text: &str| format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)));
        let scripts = format!("script-src {} {};", of("alert(1)"), of("2"));
        assert!(policy.contains(&scripts), "{policy}");
        assert!(
            policy.contains(&format!("style-src {};", of("a{}"))),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"));
        assert_eq!(
            response.headers()[header::X_CONTENT_TYPE_OPTIONS],
            "nosniff"
        );
        assert_eq!(sources("<p>no script</p>", "script"), "'none'");
    }
}
