//! The route table: one declaration per route, from which authorisation, limits, CORS, `/routes`, the OpenAPI document and
//! the access log follow.
//!
//! A kind of work declares its [`Routes`]; there is no default access, so that a route without one does not compile:
//!
//! ```text
//! Routes::new().limited(Limit::Shared)
//!     .get("/runs", Access::Read, list, list_docs)
//!     .sse("/runs/{id}/events", Access::Read.or_ticket(), events, events_docs)
//!     .socket("/ws", Access::Read.or_ticket(), connect).quiet().exposes(&[BUFFER_SIZE])
//! ```
//!
//! [`RouteTable`] is what middleware looks up: by the path that matched, which is a template, and the method.

use std::collections::{BTreeSet, HashMap};

use aide::axum::routing::{ApiMethodRouter, delete_with, get_with, post_with, put_with};
use aide::operation::OperationHandler;
use aide::transform::TransformOperation;
use aide::{OperationInput, OperationOutput};
use axum::Extension;
use axum::handler::Handler;
use axum::http::{HeaderName, Method};
use axum::routing::{any, get};

use crate::access::policy::Policy;

/// A kind of work, as far as HTTP is concerned.
pub(crate) struct Kind<S> {
    name: &'static str,
    routes: Routes<S>,
    start: fn(&S),
}

impl<S> Kind<S> {
    pub(crate) fn new(name: &'static str, routes: Routes<S>) -> Self {
        Self {
            name,
            routes,
            start: |_| {},
        }
    }

    /// What has to be done when an edge starts.
    pub(crate) fn starting(mut self, start: fn(&S)) -> Self {
        self.start = start;
        self
    }

    /// Starts what runs without being asked for.
    pub(crate) fn start(&self, state: &S) {
        (self.start)(state);
    }

    /// What is declared of each route, and its handler.
    pub(crate) fn into_routes(self) -> impl Iterator<Item = (RouteInfo, ApiMethodRouter<S>)> {
        let routes = self.routes.routes.into_iter();
        routes.map(move |Route { mut info, handler }| {
            info.kind = self.name;
            (info, handler)
        })
    }
}

/// Which limit of requests a route counts against; public routes have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Requests per second of this edge.
    Local,
    /// Requests of a window, over all edges.
    Shared,
}

/// How errors that are not a handler's own are worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorStyle {
    /// `error` is a sentence.
    Sentence,
    /// `error` is one fixed word; the sentence is the `hint`.
    Word,
}

/// How a request is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// At the level info.
    Normal,
    /// At the level debug: machines send it all the time.
    Quiet,
}

/// Where a route is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// In the OpenAPI document and in the list of routes.
    Documented,
    /// In the list of routes only: sockets and pages.
    Listed,
    /// Nowhere: it exists for a better error.
    Hidden,
}

/// Which methods a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Methods {
    /// This one; HEAD besides where it is GET.
    One(Method),
    /// All of them.
    Any,
}

/// What is declared of a route besides its handler.
#[derive(Clone, Debug)]
pub(crate) struct RouteInfo {
    /// The name of its kind of work.
    pub(crate) kind: &'static str,
    pub(crate) methods: Methods,
    /// Its path; a part in braces stands for any text.
    pub(crate) path: String,
    pub(crate) policy: Policy,
    pub(crate) limit: Limit,
    pub(crate) errors: ErrorStyle,
    pub(crate) level: Level,
    pub(crate) listing: Listing,
    /// Headers of its responses that scripts of other origins may read.
    pub(crate) exposes: Vec<HeaderName>,
    /// The path of the route that it is another name of.
    pub(crate) alias_of: Option<String>,
}

struct Route<S> {
    info: RouteInfo,
    handler: ApiMethodRouter<S>,
}

/// What answers a route.
struct Endpoint<S> {
    methods: Methods,
    listing: Listing,
    handler: ApiMethodRouter<S>,
}

/// The routes of a kind of work.
pub(crate) struct Routes<S> {
    limit: Limit,
    errors: ErrorStyle,
    routes: Vec<Route<S>>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        Self {
            limit: Limit::Local,
            errors: ErrorStyle::Sentence,
            routes: Vec::new(),
        }
    }

    /// Which limit the routes after this count against.
    pub(crate) fn limited(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    /// How errors of the routes after this are worded.
    pub(crate) fn errors(mut self, errors: ErrorStyle) -> Self {
        self.errors = errors;
        self
    }
}

/// A method of [`Routes`] that adds a documented route.
macro_rules! documented {
    ($($(#[$doc:meta])* $name:ident $with:ident $method:ident;)*) => {
        impl<S: Clone + Send + Sync + 'static> Routes<S> {
            $($(#[$doc])*
            pub(crate) fn $name<H, I, O, T, F>(
                self,
                path: impl Into<String>,
                policy: impl Into<Policy>,
                handler: H,
                docs: F,
            ) -> Self
            where
                H: Handler<T, S> + OperationHandler<I, O>,
                I: OperationInput,
                O: OperationOutput,
                T: 'static,
                F: FnOnce(TransformOperation<'_>) -> TransformOperation<'_>,
            {
                self.add(path, policy, Endpoint {
                    methods: Methods::One(Method::$method),
                    listing: Listing::Documented,
                    handler: $with(handler, docs),
                })
            })*
        }
    };
}

documented! {
    /// A GET.
    get get_with GET;
    /// A GET that is answered with server-sent events.
    sse get_with GET;
    /// A POST.
    post post_with POST;
    /// A PUT.
    put put_with PUT;
    /// A DELETE.
    delete delete_with DELETE;
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// A WebSocket.
    pub(crate) fn socket<H, T>(
        self,
        path: impl Into<String>,
        policy: impl Into<Policy>,
        handler: H,
    ) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let endpoint = Endpoint {
            methods: Methods::One(Method::GET),
            listing: Listing::Listed,
            handler: get(handler).into(),
        };
        self.add(path, policy, endpoint)
    }

    /// A page or a file.
    pub(crate) fn page<H, T>(
        self,
        path: impl Into<String>,
        policy: impl Into<Policy>,
        handler: H,
    ) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.socket(path, policy, handler)
    }

    /// A path that is no route, but has a better error than "not found".
    pub(crate) fn any<H, T>(
        self,
        path: impl Into<String>,
        policy: impl Into<Policy>,
        handler: H,
    ) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let endpoint = Endpoint {
            methods: Methods::Any,
            listing: Listing::Hidden,
            handler: any(handler).into(),
        };
        self.add(path, policy, endpoint)
    }

    /// The last route is not worth a line in the log each time.
    pub(crate) fn quiet(mut self) -> Self {
        if let Some(route) = self.routes.last_mut() {
            route.info.level = Level::Quiet;
        }
        self
    }

    /// Scripts of other origins may read these headers of the last route's responses.
    pub(crate) fn exposes(mut self, headers: &[HeaderName]) -> Self {
        if let Some(route) = self.routes.last_mut() {
            route.info.exposes.extend_from_slice(headers);
        }
        self
    }

    /// These routes as well.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// Handlers of these routes get this value as an `Extension`.
    pub(crate) fn with<V: Clone + Send + Sync + 'static>(mut self, value: V) -> Self {
        let routes = self
            .routes
            .into_iter()
            .map(|Route { info, handler }| Route {
                info,
                handler: handler.layer(Extension(value.clone())),
            });
        self.routes = routes.collect();
        self
    }

    /// Marks every route as another name of the one whose path begins with `original` instead of `mount`.
    pub(crate) fn alias(mut self, mount: &str, original: &str) -> Self {
        for route in &mut self.routes {
            let rest = route.info.path.strip_prefix(mount).unwrap_or_default();
            route.info.alias_of = Some(format!("{original}{rest}"));
        }
        self
    }

    /// The one way that a route is declared; the methods before this say which endpoint it has.
    fn add(
        mut self,
        path: impl Into<String>,
        policy: impl Into<Policy>,
        endpoint: Endpoint<S>,
    ) -> Self {
        let Endpoint {
            methods,
            listing,
            handler,
        } = endpoint;
        let info = RouteInfo {
            kind: "",
            methods,
            path: path.into(),
            policy: policy.into(),
            limit: self.limit,
            errors: self.errors,
            level: Level::Normal,
            listing,
            exposes: Vec::new(),
            alias_of: None,
        };
        self.routes.push(Route { info, handler });
        self
    }
}

/// All routes of an edge, by path and method.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteTable {
    routes: Vec<RouteInfo>,
    by_path: HashMap<String, Vec<usize>>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'t> {
    /// This route.
    Route(&'t RouteInfo),
    /// A path that does not take this method; one of its routes, of those with the least policy.
    OtherMethod(&'t RouteInfo),
    /// Nothing there is.
    Nothing,
}

impl RouteTable {
    pub(crate) fn new(routes: Vec<RouteInfo>) -> Self {
        let mut by_path = HashMap::<String, Vec<usize>>::new();
        for (index, route) in routes.iter().enumerate() {
            by_path.entry(route.path.clone()).or_default().push(index);
        }
        Self { routes, by_path }
    }

    /// Every route, as declared.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RouteInfo> {
        self.routes.iter()
    }

    /// The methods that a path takes.
    pub(crate) fn methods(&self, path: Option<&str>) -> BTreeSet<&str> {
        let found = path.and_then(|path| self.by_path.get(path));
        let routes = found.into_iter().flatten();
        let methods = routes.filter_map(|index| match &self.routes[*index].methods {
            Methods::Any => None,
            Methods::One(one) => Some(one.as_str()),
        });
        methods.collect()
    }

    /// The route of a path that matched.
    pub(crate) fn find(&self, path: Option<&str>, method: &Method) -> Target<'_> {
        let found = path.and_then(|path| self.by_path.get(path));
        let routes = found
            .into_iter()
            .flatten()
            .map(|index| &self.routes[*index]);
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let takes = |route: &&RouteInfo| match &route.methods {
            Methods::Any => true,
            Methods::One(one) => one == method,
        };
        match routes.clone().find(takes) {
            Some(route) => Target::Route(route),
            None => routes
                .min_by_key(|route| route.policy.access)
                .map_or(Target::Nothing, Target::OtherMethod),
        }
    }
}
