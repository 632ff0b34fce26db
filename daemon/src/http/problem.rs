//! Refusals as RFC 9457 problem documents: one status, one stable code, one sentence.
//!
//! `code` is the contract: clients branch on it, and it never changes its meaning. `detail`
//! says what was wrong and what to do. What the operator should know and the client should
//! not (evidence, sources) goes into the log here and nowhere else.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::factors::dpop::ProofError;
use crate::service::Refused;

/// `application/problem+json` (RFC 9457) with a stable `code`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:custodyd:problem:<code>`
    pub r#type: String,
    pub title: &'static str,
    pub status: u16,
    pub detail: String,
    /// Stable; branch on this.
    pub code: &'static str,
    /// What some codes add: `retry_after`, `attempts_left`, `current_version`, ...
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Problem {
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            r#type: format!("urn:custodyd:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Refused"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            more: Map::new(),
        }
    }

    #[must_use]
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed-request", detail)
    }

    #[must_use]
    fn with(mut self, member: &str, value: Value) -> Self {
        self.more.insert(member.to_owned(), value);
        self
    }

    /// When to come back, in seconds.
    #[must_use]
    pub fn again_in(self, seconds: u64) -> Self {
        self.with("retry_after", json!(seconds))
    }

    fn retry_after(&self) -> Option<HeaderValue> {
        let seconds = self.more.get("retry_after")?.as_u64()?;
        Some(HeaderValue::from(seconds))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after();
        let code = self.code;
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        let headers = response.headers_mut();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value);
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9449 section 7.1 and 9; for an app's backend RFC 6750 section 3.
            let challenge = match code {
                "credential-invalid" => "Bearer",
                "use-dpop-nonce" => r#"DPoP error="use_dpop_nonce", algs="ES256""#,
                "dpop-missing" | "session-missing" => r#"DPoP algs="ES256""#,
                code if code.starts_with("dpop") => {
                    r#"DPoP error="invalid_dpop_proof", algs="ES256""#
                }
                code if code.starts_with("session") => {
                    r#"DPoP error="invalid_token", algs="ES256""#
                }
                _ => r#"DPoP algs="ES256""#,
            };
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        response.extensions_mut().insert(Code(code));
        response
    }
}

/// The problem's code, for the request log and the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Code(pub &'static str);

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (status, code) = kind(&refused);
        if status.is_server_error() {
            log(&refused, code);
        }
        let problem = Self::new(status, code, refused.to_string());
        match refused {
            Refused::Wrong {
                left,
                wait_until,
                exhausted,
                ..
            } => {
                let problem = problem
                    .with("attempts_left", json!(left))
                    .with("exhausted", json!(exhausted));
                match wait_until {
                    Some(until) => problem.with("wait_until", json!(until)),
                    None => problem,
                }
            }
            Refused::Wait { until, .. } => problem
                .with("wait_until", json!(until.at))
                .again_in(until.seconds),
            Refused::DeliveryWait { until } => problem
                .with("wait_until", json!(until.at))
                .again_in(until.seconds),
            Refused::RecoveryWaits { due } => {
                problem.with("due", json!(due.at)).again_in(due.seconds)
            }
            Refused::StepUp(step_up) => problem
                .with("need_at_least", json!(step_up.need_at_least))
                .with("need_fresh", json!(step_up.need_fresh)),
            Refused::NotItsReader { name, lacks, .. } => problem
                .with("need_at_least", json!(lacks.step_up.need_at_least))
                .with("need_fresh", json!(lacks.step_up.need_fresh))
                .with("need_one_of", json!(lacks.one_of))
                .with("secret", json!(name)),
            Refused::PreconditionFailed { current } => {
                problem.with("current_version", json!(current))
            }
            Refused::Busy { retry_after } | Refused::EnrolmentQuota { retry_after } => {
                problem.with("retry_after", json!(retry_after.as_secs().max(1)))
            }
            // A started second counts in full: who comes back then is served.
            Refused::RateLimited { retry_after } => {
                problem.with("retry_after", json!(retry_after.as_secs() + 1))
            }
            Refused::TokenUnavailable(_)
            | Refused::StoreUnavailable(_)
            | Refused::Unconfirmed
            | Refused::Outgrown(_) => problem.again_in(5),
            // By then a part of the memory of proofs is free again.
            Refused::Proof(ProofError::Busy) => problem.again_in(60),
            Refused::TooMany { limit, .. } | Refused::SecretTooLarge { limit } => {
                problem.with("limit", json!(limit))
            }
            _ => problem,
        }
    }
}

/// The one table of statuses and codes.
fn kind(refused: &Refused) -> (StatusCode, &'static str) {
    use StatusCode as S;
    match refused {
        Refused::UnknownApp(_) => (S::NOT_FOUND, "app-unknown"),
        Refused::OriginNotAllowed(_) => (S::FORBIDDEN, "origin-not-allowed"),
        Refused::EnrolmentClosed => (S::FORBIDDEN, "enrolment-closed"),
        Refused::EnrolmentQuota { .. } => (S::TOO_MANY_REQUESTS, "enrolment-quota"),
        Refused::Ticket(error) => (S::FORBIDDEN, error.code()),
        Refused::Malformed(_) => (S::BAD_REQUEST, "malformed-request"),
        Refused::Proof(error) => match error.code() {
            "busy" => (S::SERVICE_UNAVAILABLE, "busy"),
            code => (S::UNAUTHORIZED, code),
        },
        Refused::SessionMissing => (S::UNAUTHORIZED, "session-missing"),
        Refused::SessionInvalid => (S::UNAUTHORIZED, "session-invalid"),
        Refused::SessionExpired => (S::UNAUTHORIZED, "session-expired"),
        Refused::SessionEnded => (S::UNAUTHORIZED, "session-ended"),
        Refused::ReadOnly => (S::FORBIDDEN, "read-only-session"),
        Refused::PinNext => (S::FORBIDDEN, "pin-only-session"),
        Refused::SessionComplete => (S::CONFLICT, "session-complete"),
        Refused::AddressKnown(_) => (S::CONFLICT, "address-known"),
        Refused::Unreachable(_) => (S::UNPROCESSABLE_ENTITY, "channel-unreachable"),
        Refused::DeliveryWait { .. } => (S::TOO_MANY_REQUESTS, "delivery-wait"),
        Refused::StepUp(_) | Refused::NotItsReader { .. } => (S::FORBIDDEN, "step-up-required"),
        Refused::AuthenticationFailed => (S::UNAUTHORIZED, "authentication-failed"),
        Refused::Wrong { guess, .. } => (S::UNAUTHORIZED, guess.codes().wrong),
        Refused::Wait { guess, .. } => (S::TOO_MANY_REQUESTS, guess.codes().wait),
        Refused::Exhausted(guess) => (S::FORBIDDEN, guess.codes().exhausted),
        Refused::ConfirmFirst => (S::FORBIDDEN, "confirm-first"),
        Refused::NotSet(guess) => (S::CONFLICT, guess.codes().not_set),
        Refused::RecoveryWaits { .. } => (S::CONFLICT, "recovery-waits"),
        Refused::PinWeak(_) => (S::UNPROCESSABLE_ENTITY, "pin-weak"),
        Refused::Ksf(_) => (S::UNPROCESSABLE_ENTITY, "ksf-weak"),
        Refused::PinOtherWay(_) => (S::CONFLICT, "pin-other-way"),
        Refused::NotAllowed(_) => (S::FORBIDDEN, "not-allowed-by-policy"),
        Refused::Passkey(error) => match error.code() {
            code @ "prf-results-refused" => (S::UNPROCESSABLE_ENTITY, code),
            code => (S::UNAUTHORIZED, code),
        },
        Refused::PasskeyExpired => (S::FORBIDDEN, "passkey-expired"),
        Refused::PasskeyKnown => (S::CONFLICT, "passkey-known"),
        Refused::Ceremony(error) => (S::UNAUTHORIZED, error.code()),
        Refused::CeremonyInvalid => (S::UNAUTHORIZED, "ceremony-invalid"),
        Refused::CeremonyConsumed => (S::UNAUTHORIZED, "ceremony-consumed"),
        Refused::TooMany { .. } => (S::CONFLICT, "too-many"),
        Refused::AccountFull => (S::CONFLICT, "account-full"),
        Refused::NotFound(_) => (S::NOT_FOUND, "not-found"),
        Refused::OwnDevice => (S::CONFLICT, "own-device"),
        Refused::PreconditionRequired => (S::PRECONDITION_REQUIRED, "precondition-required"),
        Refused::PreconditionFailed { .. } => (S::PRECONDITION_FAILED, "precondition-failed"),
        Refused::SecretTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "secret-too-large"),
        Refused::SecretShape(_) => (S::UNPROCESSABLE_ENTITY, "secret-malformed"),
        Refused::ServerSlotForbidden => (S::UNPROCESSABLE_ENTITY, "server-slot-forbidden"),
        Refused::PrfOnlySlot => (S::UNPROCESSABLE_ENTITY, "prf-only-slot"),
        Refused::SlotUnknown { .. } => (S::UNPROCESSABLE_ENTITY, "slot-unknown"),
        Refused::LastSlot { .. } => (S::CONFLICT, "last-slot"),
        Refused::ReleaseForbidden { .. } => (S::FORBIDDEN, "release-forbidden"),
        Refused::LastAppKey => (S::CONFLICT, "last-app-key"),
        Refused::AppKeyRevoked => (S::CONFLICT, "app-key-revoked"),
        Refused::CredentialInvalid => (S::UNAUTHORIZED, "credential-invalid"),
        Refused::AccountExists => (S::CONFLICT, "account-exists"),
        Refused::AliasTaken => (S::CONFLICT, "alias-taken"),
        Refused::RateLimited { .. } => (S::TOO_MANY_REQUESTS, "rate-limited"),
        Refused::Busy { .. } => (S::SERVICE_UNAVAILABLE, "busy"),
        Refused::TokenUnavailable(_) => (S::SERVICE_UNAVAILABLE, "token-unavailable"),
        Refused::StoreUnavailable(_) => (S::SERVICE_UNAVAILABLE, "store-unavailable"),
        Refused::Unconfirmed => (S::SERVICE_UNAVAILABLE, "newest-unconfirmed"),
        Refused::Outgrown(_) => (S::SERVICE_UNAVAILABLE, "node-outgrown"),
        Refused::Tampered(_) => (S::INTERNAL_SERVER_ERROR, "record-tampered"),
        Refused::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal"),
        Refused::AuditorInvalid => (S::UNAUTHORIZED, "credential-invalid"),
        Refused::LogTampered(_) => (S::INTERNAL_SERVER_ERROR, "log-tampered"),
    }
}

fn log(refused: &Refused, code: &'static str) {
    match refused {
        Refused::TokenUnavailable(error) => tracing::error!(code, %error, "refused"),
        Refused::StoreUnavailable(error) => tracing::error!(code, %error, "refused"),
        Refused::Tampered(evidence) | Refused::LogTampered(evidence) => {
            tracing::error!(code, %evidence, "refused")
        }
        Refused::Internal(operation) => tracing::error!(code, operation, "refused"),
        _ => {}
    }
}
