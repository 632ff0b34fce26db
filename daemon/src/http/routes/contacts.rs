//! `/v1/account/contact` and `/v1/account/alias`: name an address, prove it, remove it.
//!
//! Two sets of routes, because their descriptions differ; what they do differs in `Usage` alone
//! and stands at the end.

use axum::Json;
use axum::http::StatusCode;

use crate::account::Usage;
use crate::api::{AddressClaimed, ConfirmAddress, RemoveAddress, SetAddress};
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::{Context, Shared};

/// Name a contact
///
/// Sends a code to the address; confirm it with that code, from the device that asked. Until
/// then it is a claim that gives nothing. `replaces` names the contact that goes when this one
/// is confirmed: its address is told. A second claim takes the place of the first. Needs a fresh
/// session of a PIN, a passkey or the account's creation.
#[utoipa::path(
    put, path = "/v1/account/contact", tag = "contacts",
    security(("session" = [])),
    request_body = SetAddress,
    responses(
        (status = 202, body = AddressClaimed),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: no address, or not one that mail or messages can be sent to"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required, read-only-session, not-allowed-by-policy"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: the contact to replace"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "too-many, address-known, account-full"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "channel-unreachable: this daemon has no delivery for it"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "delivery-wait (Retry-After)"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "busy"),
    ),
)]
pub(in crate::http) async fn claim_contact(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<AddressClaimed>), Problem> {
    claim(&context, &signed, Usage::Contact).await
}

/// Confirm a contact
///
/// With the code that was sent to it. From then on codes and notices go there, and unless the
/// policy says otherwise the account is found by it.
#[utoipa::path(
    post, path = "/v1/account/contact/confirm", tag = "contacts",
    security(("session" = [])),
    request_body = ConfirmAddress,
    responses(
        (status = 204),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not the shape of a code"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "code-wrong (attempts_left, wait_until, exhausted)"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "code-exhausted: name the address again; read-only-session"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: no such claim"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "code-wait (Retry-After)"),
    ),
)]
pub(in crate::http) async fn confirm_contact(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    confirm(&context, &signed, Usage::Contact).await
}

/// Remove a contact, or the claim to one
///
/// Its address is told, and so are the contacts that stay.
#[utoipa::path(
    delete, path = "/v1/account/contact", tag = "contacts",
    security(("session" = [])),
    request_body = RemoveAddress,
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required, read-only-session"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
    ),
)]
pub(in crate::http) async fn remove_contact(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    remove(&context, &signed, Usage::Contact).await
}

/// Name an alias
///
/// An address by which the account is found, and which gets nothing but the code that proves
/// it. Whether it is another account's already is told to nobody: its confirmation fails then.
#[utoipa::path(
    put, path = "/v1/account/alias", tag = "contacts",
    security(("session" = [])),
    request_body = SetAddress,
    responses(
        (status = 202, body = AddressClaimed),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: no address"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required, read-only-session, not-allowed-by-policy"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: the alias to replace"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "too-many, address-known, account-full"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "channel-unreachable"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "delivery-wait (Retry-After)"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "busy"),
    ),
)]
pub(in crate::http) async fn claim_alias(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<AddressClaimed>), Problem> {
    claim(&context, &signed, Usage::Alias).await
}

/// Confirm an alias
#[utoipa::path(
    post, path = "/v1/account/alias/confirm", tag = "contacts",
    security(("session" = [])),
    request_body = ConfirmAddress,
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "code-wrong (attempts_left, wait_until, exhausted): also where the alias is another account's"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "code-exhausted; read-only-session"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: no such claim"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "code-wait (Retry-After)"),
    ),
)]
pub(in crate::http) async fn confirm_alias(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    confirm(&context, &signed, Usage::Alias).await
}

/// Remove an alias, or the claim to one
#[utoipa::path(
    delete, path = "/v1/account/alias", tag = "contacts",
    security(("session" = [])),
    request_body = RemoveAddress,
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required, read-only-session"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
    ),
)]
pub(in crate::http) async fn remove_alias(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    remove(&context, &signed, Usage::Alias).await
}

async fn claim(
    context: &Context,
    signed: &Signed,
    usage: Usage,
) -> Result<(StatusCode, Json<AddressClaimed>), Problem> {
    let caller = signed.caller().await?;
    let wanted = signed.json::<SetAddress>()?;
    let claimed = context.service.claim_address(caller, usage, wanted).await?;
    Ok((StatusCode::ACCEPTED, Json(claimed)))
}

async fn confirm(context: &Context, signed: &Signed, usage: Usage) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    let code = signed.json::<ConfirmAddress>()?;
    context.service.confirm_address(caller, usage, code).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(context: &Context, signed: &Signed, usage: Usage) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    let which = signed.json::<RemoveAddress>()?;
    context.service.remove_address(caller, usage, which).await?;
    Ok(StatusCode::NO_CONTENT)
}
