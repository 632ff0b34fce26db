//! Completes the API description with what many operations answer alike.
//!
//! Called by the router. A route says what is peculiar to it; the refusals that come from the
//! proof, the session, the size and type of a body, or from a token or database that is away, are
//! added here for each operation that can meet them. `tests/e2e/openapi.rs` holds the result
//! against the running daemon.

use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, Response, ResponseBuilder};

const PROBLEM: &str = "application/problem+json";

/// Adds the refusals that each operation shares with others.
pub(super) fn complete(api: &mut OpenApi) {
    for (path, item) in &mut api.paths.paths {
        for (operation, writes) in operations(item) {
            for (status, code) in shared(path, operation, writes) {
                add(operation, status, code);
            }
        }
    }
}

/// The operations of a path, and whether each changes something.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let reads = item.get.iter_mut().map(|one| (one, false));
    let writes = [&mut item.put, &mut item.post, &mut item.delete];
    reads.chain(writes.into_iter().flatten().map(|one| (one, true)))
}

fn shared(path: &str, operation: &Operation, writes: bool) -> Vec<(&'static str, &'static str)> {
    let of_an_app = path.starts_with("/v1/apps/");
    let with_a_session = path.starts_with("/v1/account") || path.starts_with("/v1/session");
    let for_the_backend = path.contains("/bindings/");
    let mut codes = vec![
        ("429", "rate-limited"),
        ("500", "internal"),
        ("503", "timeout"),
    ];
    if of_an_app || with_a_session {
        codes.extend([
            ("400", "malformed-request"),
            ("500", "record-tampered"),
            ("503", "busy"),
            ("503", "token-unavailable"),
            ("503", "store-unavailable"),
        ]);
    }
    if path.starts_with("/log/") {
        codes.extend([
            ("400", "malformed-request"),
            ("503", "busy"),
            ("503", "token-unavailable"),
            ("503", "store-unavailable"),
        ]);
    }
    if of_an_app {
        codes.push(("404", "app-unknown"));
    }
    if (of_an_app || with_a_session) && !for_the_backend {
        codes.extend([
            ("401", "dpop-missing"),
            ("401", "dpop-invalid"),
            ("401", "dpop-replayed"),
            ("401", "use-dpop-nonce"),
            ("403", "origin-not-allowed"),
            ("413", "body-too-large"),
        ]);
    }
    if with_a_session {
        codes.extend([
            ("401", "session-missing"),
            ("401", "session-invalid"),
            ("401", "session-expired"),
            ("401", "session-ended"),
        ]);
        if writes {
            codes.extend([("403", "read-only-session"), ("409", "account-full")]);
        }
    }
    if operation.request_body.is_some() {
        codes.push(("415", "unsupported-media-type"));
    }
    codes
}

/// Names `code` among what the operation answers with this status.
fn add(operation: &mut Operation, status: &str, code: &str) {
    let response = operation
        .responses
        .responses
        .entry(status.to_owned())
        .or_insert_with(|| RefOr::T(problem()));
    let RefOr::T(response) = response else {
        return;
    };
    let named = response
        .description
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .any(|word| word == code);
    if !named {
        if !response.description.is_empty() {
            response.description.push_str(", ");
        }
        response.description.push_str(code);
    }
}

fn problem() -> Response {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().content(PROBLEM, content).build()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use serde_json::Value;

    /// Clients are generated from it, so each reference leads somewhere.
    #[test]
    fn every_operation_names_shared_refusals_once_and_every_reference_resolves() {
        let api = serde_json::to_value(crate::http::router::openapi()).unwrap();
        let add = &api["paths"]["/v1/account/app-keys"]["post"]["responses"];
        let conflict = add["409"]["description"].as_str().unwrap();
        assert_eq!(conflict.matches("account-full").count(), 1, "{conflict}");
        assert!(add["503"]["description"].as_str().unwrap().contains("busy"));
        let open = &api["paths"]["/.well-known/jwks.json"]["get"]["responses"];
        assert!(open.get("401").is_none() && open.get("500").is_some());
        let mut references = 0;
        check(&api, &api, &mut references);
        assert!(references > 100, "{references}");
    }

    fn check(api: &Value, value: &Value, references: &mut usize) {
        match value {
            Value::Object(members) => {
                if let Some(to) = members.get("$ref").and_then(Value::as_str) {
                    *references += 1;
                    assert!(api.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                }
                members.values().for_each(|one| check(api, one, references));
            }
            Value::Array(values) => values.iter().for_each(|one| check(api, one, references)),
            _ => {}
        }
    }
}
