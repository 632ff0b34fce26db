//! `POST /v1/apps/{app}/accounts`

use axum::Json;
use axum::http::StatusCode;

use crate::api::{AccountCreated, CreateAccount};
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Create an account
///
/// Binds the app's public key and this device's DPoP key to a new account. Two proofs of
/// possession: the DPoP proof of this request (RFC 9449, signed by the device key, with the
/// claim `body_sha256`), and `app_key_proof` (signed by the app's private key over the
/// device key's thumbprint). The session in the answer counts as fresh for ten minutes: add a
/// PIN or a passkey within it. An `Idempotency-Key` makes a repeated request return the same
/// account, within those ten minutes and from the same keys.
///
/// A `ticket` of the app's backend enrols whatever the policy says of open enrolment, and is not
/// counted in its hourly quota. It makes one account: brought again, by the same keys within ten
/// minutes, it returns that account; else `account-exists`.
#[utoipa::path(
    post, path = "/v1/apps/{app}/accounts", tag = "accounts",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 characters"),
    ),
    request_body = CreateAccount,
    responses(
        (status = 201, body = AccountCreated),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "dpop-missing, dpop-invalid, use-dpop-nonce, dpop-replayed"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "enrolment-closed, ticket-invalid, ticket-expired, origin-not-allowed"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "app-unknown"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "account-exists"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "enrolment-quota"),
    ),
)]
pub(in crate::http) async fn create(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<AccountCreated>), Problem> {
    let device = signed.device(&app)?;
    let created = context
        .service
        .create_account(
            &device,
            signed.json::<CreateAccount>()?,
            signed.idempotency_key()?,
        )
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}
