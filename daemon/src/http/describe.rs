//! Completes the API description with what many operations answer alike.
//!
//! Called by the router. A route says what is peculiar to it; the refusals that come from the
//! proof, the session, the size and type of a body, or from a token or database that is away, are
//! added here for each operation that can meet them. `tests/e2e/openapi.rs` holds the result
//! against the running daemon.

use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, Response, ResponseBuilder};

const PROBLEM: &str = "application/problem+json";

/// Adds the refusals that each operation shares with others, and a name of its own.
pub(super) fn complete(api: &mut OpenApi) {
    for (path, item) in &mut api.paths.paths {
        name(path, item);
        for (operation, writes) in operations(item) {
            for (status, code) in shared(path, operation, writes) {
                add(operation, status, code);
            }
            describe(operation);
        }
    }
}

/// The operations of a path, and whether each changes something.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let reads = item.get.iter_mut().map(|one| (one, false));
    let writes = [&mut item.put, &mut item.post, &mut item.delete];
    reads.chain(writes.into_iter().flatten().map(|one| (one, true)))
}

/// Generators of clients demand one name for one operation, and handlers of different routes have the
/// same one: so it is the method and the path.
fn name(path: &str, item: &mut PathItem) {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let methods = [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("delete", &mut item.delete),
    ];
    for (method, operation) in methods {
        if let Some(operation) = operation {
            operation.operation_id = Some(format!("{method}_{}", words.join("_")));
        }
    }
}

fn shared(path: &str, operation: &Operation, writes: bool) -> Vec<(&'static str, &'static str)> {
    let of_an_app = path.starts_with("/v1/apps/");
    let with_a_session = path.starts_with("/v1/account") || path.starts_with("/v1/session");
    let for_the_backend = path.contains("/bindings/");
    let mut codes = vec![
        ("429", "rate-limited"),
        ("500", "internal"),
        ("503", "timeout"),
        ("503", "busy"),
    ];
    if of_an_app || with_a_session {
        codes.extend([
            ("400", "malformed-request"),
            ("500", "record-tampered"),
            ("503", "token-unavailable"),
            ("503", "store-unavailable"),
            ("503", "newest-unconfirmed"),
            ("503", "node-outgrown"),
        ]);
    }
    if path.starts_with("/log/") {
        codes.extend([
            ("400", "malformed-request"),
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

/// OpenAPI demands a sentence of each answer, also where its shape says all.
fn describe(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            "as it was asked for".clone_into(&mut response.description);
        }
    }
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

    #[test]
    fn every_operation_has_a_name_of_its_own_and_every_answer_a_description() {
        let api = serde_json::to_value(crate::http::router::openapi()).unwrap();
        let paths = api["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|item| item.as_object().unwrap().values());
        let mut names = Vec::new();
        for operation in operations {
            names.extend(operation["operationId"].as_str());
            for answer in operation["responses"].as_object().unwrap().values() {
                assert!(answer["description"].is_string(), "{operation}");
            }
        }
        assert!(names.len() > 40, "{names:?}");
        assert!(names.contains(&"put_v1_account_secrets_name"), "{names:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
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
