//! The credential JSON as a browser gives it: the checks that the library does
//! not make.
//!
//! Called by `passkey` before the library sees a body. The adversary writes
//! every byte. Nothing here is believed: these checks only refuse early and in
//! words. The one that matters for secrecy is [`refuse_prf_results`].

use custodyd_hsm::AccountId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::{quoted, unb64, unb64_array};
use super::error::PasskeyError;

/// Longest credential id (WebAuthn Level 3, section 4, "Credential ID").
pub const MAX_CREDENTIAL_ID: usize = 1023;

/// Whom an assertion claims to be from. Only a claim: it says which account to
/// load, and the signature is then checked with what that account holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asserted {
    /// The user handle, where the authenticator gave one: always for a
    /// discoverable login.
    pub account: Option<AccountId>,
    /// The credential that signed.
    pub credential_id: Vec<u8>,
}

/// Read from an assertion whom it claims to be from.
pub fn identify(body: &Value) -> Result<Asserted, PasskeyError> {
    refuse_prf_results(body)?;
    let credential_id = credential_id(body)?;
    let account = match body
        .get("response")
        .and_then(|response| response.get("userHandle"))
    {
        None | Some(Value::Null) => None,
        Some(handle) => {
            let bytes = handle.as_str().and_then(unb64_array);
            Some(AccountId(bytes.ok_or_else(|| {
                PasskeyError::invalid("response.userHandle: expected 16 bytes as base64url")
            })?))
        }
    };
    Ok(Asserted {
        account,
        credential_id,
    })
}

/// Refuse a body that carries the output of the PRF extension, or of the
/// hmac-secret extension under it, anywhere: `credential.toJSON()` in browsers
/// contains it, and it is the key under which the client seals its secrets. A
/// server that has seen it could open them. `prf: {"enabled": true}` is fine.
pub fn refuse_prf_results(body: &Value) -> Result<(), PasskeyError> {
    match body {
        Value::Object(members) => {
            for (name, value) in members {
                if name == "prf" && present(value.get("results")) {
                    return Err(PasskeyError::PrfResults("prf.results"));
                }
                if matches!(name.as_str(), "hmacGetSecret" | "hmac_get_secret")
                    && present(Some(value))
                {
                    return Err(PasskeyError::PrfResults("hmacGetSecret"));
                }
                refuse_prf_results(value)?;
            }
            Ok(())
        }
        Value::Array(values) => values.iter().try_for_each(refuse_prf_results),
        _ => Ok(()),
    }
}

fn present(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !value.is_null())
}

/// Check what both ceremonies share, and give the library's type.
pub(super) fn read<T: DeserializeOwned>(
    body: &Value,
    origins: &[String],
) -> Result<T, PasskeyError> {
    refuse_prf_results(body)?;
    credential_id(body)?;
    check_origin(body, origins)?;
    T::deserialize(body).map_err(|error| PasskeyError::Invalid(error.to_string()))
}

/// `id` and `rawId` are two spellings of one thing; a body in which they differ
/// would be logged under one name and verified under another.
fn credential_id(body: &Value) -> Result<Vec<u8>, PasskeyError> {
    if text(body, &["type"]) != Some("public-key") {
        return Err(PasskeyError::invalid("type: expected \"public-key\""));
    }
    let raw_id = text(body, &["rawId"])
        .ok_or_else(|| PasskeyError::invalid("rawId is missing: send credential.toJSON()"))?;
    if text(body, &["id"]) != Some(raw_id) {
        return Err(PasskeyError::invalid("id and rawId differ"));
    }
    let bytes =
        unb64(raw_id).ok_or_else(|| PasskeyError::invalid("rawId: expected unpadded base64url"))?;
    if bytes.is_empty() || bytes.len() > MAX_CREDENTIAL_ID {
        return Err(PasskeyError::invalid(format!(
            "rawId: expected 1 to {MAX_CREDENTIAL_ID} bytes"
        )));
    }
    Ok(bytes)
}

/// The part of CollectedClientData (WebAuthn Level 3, section 5.8.1) that is
/// compared here.
#[derive(Deserialize)]
struct ClientData {
    origin: String,
    #[serde(rename = "crossOrigin")]
    cross_origin: Option<bool>,
    #[serde(rename = "topOrigin")]
    top_origin: Option<serde::de::IgnoredAny>,
}

/// The origin must be one of the policy's, character by character. The library
/// compares parsed URLs, to which `https://app.example/x` is `https://app.example`.
fn check_origin(body: &Value, origins: &[String]) -> Result<(), PasskeyError> {
    let bytes = text(body, &["response", "clientDataJSON"])
        .and_then(unb64)
        .ok_or_else(|| {
            PasskeyError::invalid("response.clientDataJSON: expected unpadded base64url")
        })?;
    let data: ClientData = serde_json::from_slice(&bytes)
        .map_err(|error| PasskeyError::Invalid(format!("response.clientDataJSON: {error}")))?;
    if !origins.contains(&data.origin) {
        return Err(PasskeyError::OriginNotAllowed {
            found: quoted(&data.origin),
            allowed: origins.join(", "),
        });
    }
    if data.cross_origin == Some(true) || data.top_origin.is_some() {
        return Err(PasskeyError::CrossOrigin);
    }
    Ok(())
}

fn text<'a>(body: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter()
        .try_fold(body, |value, member| value.get(member))?
        .as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prf_results_are_found_wherever_they_hide() {
        let secret = json!({"first": "AAAA"});
        for body in [
            json!({"clientExtensionResults": {"prf": {"enabled": true, "results": secret}}}),
            json!({"extensions": {"prf": {"results": secret}}}),
            json!({"response": {"deep": [[{"prf": {"results": {}}}]]}}),
            json!({"prf": {"results": "AAAA"}}),
            json!({"clientExtensionResults": {"hmacGetSecret": {"output1": "AAAA"}}}),
            json!({"clientExtensionResults": {"hmac_get_secret": {"output1": "AAAA"}}}),
        ] {
            assert!(
                matches!(refuse_prf_results(&body), Err(PasskeyError::PrfResults(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn that_prf_is_enabled_is_no_secret() {
        for body in [
            json!({"clientExtensionResults": {"prf": {"enabled": true}}}),
            json!({"clientExtensionResults": {"prf": {}}}),
            json!({"clientExtensionResults": {"prf": {"results": null}, "credProps": {"rk": true}}}),
            json!({"results": {"first": "AAAA"}}),
        ] {
            assert!(refuse_prf_results(&body).is_ok(), "{body}");
        }
    }
}
