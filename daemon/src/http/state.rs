//! What a router knows: the service, and the address under which clients reach it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::service::Service;

/// One for each listener, because a proof names the address it was made for.
#[derive(Debug)]
pub struct Context {
    pub service: Arc<Service>,
    /// `https://host[:port]`, without a slash at the end.
    pub base_url: String,
}

/// The context, as a handler's argument.
#[derive(Debug)]
pub struct Shared(pub Arc<Context>);

impl FromRequestParts<Arc<Context>> for Shared {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, context: &Arc<Context>) -> Result<Self, Infallible> {
        Ok(Self(Arc::clone(context)))
    }
}
