//! Passkeys (WebAuthn Level 3) by `webauthn-rs`.
//!
//! Called by `service/`. A [`RelyingParty`] serves one app: it makes options and
//! checks answers, and holds no state. What was issued travels in a sealed
//! ceremony; what is registered comes from the envelope. It must never accept a
//! credential that the caller did not load from the envelope, and never see a
//! PRF result: the options ask for one, and a body that brings it is refused.
//!
//! Authentication always takes the library's discoverable flow, also where the
//! options name credentials. So the state carries a challenge only, and the
//! assertion is checked against the credential as it is now: a copy in the
//! state could bring an old counter or a removed credential back.

mod body;
mod cose;
mod error;
#[cfg(test)]
mod tests;

use custodyd_hsm::{AccountId, AppId, RealmName};
use custodyd_policies::AppPolicy;
use serde_json::{Value, json};
use webauthn_rs::prelude::{
    AttestationFormat, Credential, CredentialID, DiscoverableAuthentication, ParsedAttestation,
    Passkey, PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential, Url, Uuid,
    Webauthn, WebauthnBuilder,
};

pub use self::body::{Asserted, MAX_CREDENTIAL_ID, identify, refuse_prf_results};
pub use self::cose::device_id;
pub use self::error::PasskeyError;
use super::{b64, sha256_fields};

/// The PRF input of an app. It is constant and public: every passkey of the app
/// gives its own secret for it, also offline, without asking this service.
pub fn prf_salt(realm: &RealmName, app: &AppId) -> [u8; 32] {
    let fields = [realm.as_str().as_bytes(), app.as_str().as_bytes()];
    sha256_fields("custodyd/prf-salt/v1", &fields)
}

/// A passkey that was just registered.
#[derive(Debug, Clone)]
pub struct NewPasskey {
    /// What the envelope keeps.
    pub passkey: Passkey,
    /// `base64url(SHA-256(COSE_Key))`: what the binding names.
    pub device_id: String,
}

/// The relying party of one app.
#[derive(Debug)]
pub struct RelyingParty {
    webauthn: Webauthn,
    origins: Vec<String>,
    prf_salt: String,
}

/// The signature counter that a passkey stands at (WebAuthn Level 3, section 6.1.1).
pub fn counter(passkey: &Passkey) -> u32 {
    let credential: webauthn_rs::prelude::Credential = passkey.clone().into();
    credential.counter
}

/// Whether a counter that was signed may follow the one that is known; an authenticator without one signs 0 (WebAuthn
/// Level 3, section 7.2, step 22).
pub fn counter_grows(known: u32, signed: u32) -> bool {
    signed > known || (signed == 0 && known == 0)
}

impl RelyingParty {
    /// From the app's policy. Fails with a sentence for the operator where the
    /// policy's origins are not as browsers write them, or do not belong to the
    /// relying party's id and are not listed as related to it.
    pub fn new(policy: &AppPolicy, prf_salt: [u8; 32]) -> Result<Self, PasskeyError> {
        let urls = policy
            .origins
            .iter()
            .map(|text| origin(text))
            .collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(PasskeyError::Misconfigured("it has no origin".into()));
        }
        let id = &policy.relying_party.id;
        let related = &policy.relying_party.related_origins;
        let mut own = None;
        for (text, url) in policy.origins.iter().zip(&urls) {
            if related.contains(text) {
                continue;
            }
            // The library checks the first origin only.
            WebauthnBuilder::new(id, url).map_err(|_| misfit(id, url))?;
            own = own.or(Some(url.clone()));
        }
        // An app whose origins are all related ones still has an identifier, and the library
        // wants an origin within it. No page gains by that: the policy's list decides first.
        let first = match own {
            Some(url) => url,
            None => origin(&format!("https://{id}"))?,
        };
        let mut builder = WebauthnBuilder::new(id, &first)
            .map_err(|_| misfit(id, &first))?
            .rp_name(&policy.relying_party.name)
            .timeout(policy.passkeys.ceremony)
            .allow_subdomains(false)
            .allow_any_port(false);
        for url in urls.iter().filter(|url| **url != first) {
            builder = builder.append_allowed_origin(url);
        }
        Ok(RelyingParty {
            webauthn: builder.build()?,
            origins: policy.origins.clone(),
            prf_salt: b64(&prf_salt),
        })
    }

    /// Options for `navigator.credentials.create()`, as `{"publicKey": ..}` in
    /// the form of `PublicKeyCredentialCreationOptionsJSON`.
    ///
    /// `exclude` holds the credential ids that the account has already.
    pub fn start_registration(
        &self,
        account: AccountId,
        user_name: &str,
        display_name: &str,
        exclude: &[CredentialID],
    ) -> Result<(Value, PasskeyRegistration), PasskeyError> {
        let (options, state) = self.webauthn.start_passkey_registration(
            Uuid::from_bytes(account.0),
            user_name,
            display_name,
            Some(exclude.to_vec()),
        )?;
        let mut options = to_json(&options)?;
        // The library asks for no discoverable credential and knows no PRF.
        set(
            &mut options,
            &["publicKey", "authenticatorSelection", "residentKey"],
            json!("required"),
        );
        set(
            &mut options,
            &["publicKey", "authenticatorSelection", "requireResidentKey"],
            json!(true),
        );
        set(
            &mut options,
            &["publicKey", "authenticatorSelection", "userVerification"],
            json!("required"),
        );
        set(
            &mut options,
            &["publicKey", "extensions", "credProps"],
            json!(true),
        );
        set(
            &mut options,
            &["publicKey", "extensions", "prf"],
            self.prf_input(),
        );
        Ok((options, state))
    }

    /// Check the answer to [`RelyingParty::start_registration`].
    pub fn finish_registration(
        &self,
        body: &Value,
        state: &PasskeyRegistration,
    ) -> Result<NewPasskey, PasskeyError> {
        let answer: RegisterPublicKeyCredential = body::read(body, &self.origins)?;
        let not_discoverable = answer
            .extensions
            .cred_props
            .as_ref()
            .is_some_and(|props| props.rk == Some(false));
        if not_discoverable {
            return Err(PasskeyError::NotDiscoverable);
        }
        let passkey = self.webauthn.finish_passkey_registration(&answer, state)?;
        if *passkey.cred_id() != answer.raw_id {
            return Err(PasskeyError::invalid(
                "rawId is not the id in the attestation object",
            ));
        }
        let passkey = without_attestation(passkey);
        let device_id = device_id(passkey.get_public_key());
        Ok(NewPasskey { passkey, device_id })
    }

    /// Options for `navigator.credentials.get()`, as `{"publicKey": ..}` in the
    /// form of `PublicKeyCredentialRequestOptionsJSON`.
    ///
    /// An empty `allow` lets the user choose any passkey of the app. A list must
    /// only be given to a device bound to the account: it tells that the account
    /// exists and has passkeys.
    pub fn start_authentication(
        &self,
        allow: &[CredentialID],
    ) -> Result<(Value, DiscoverableAuthentication), PasskeyError> {
        let (options, state) = self.webauthn.start_discoverable_authentication()?;
        let mut options = to_json(&options)?;
        if let Some(members) = options.as_object_mut() {
            // Whether the browser shows a dialog or a form field is the page's choice.
            members.remove("mediation");
        }
        let allow: Vec<Value> = allow
            .iter()
            .map(|id| json!({ "type": "public-key", "id": b64(id) }))
            .collect();
        set(
            &mut options,
            &["publicKey", "allowCredentials"],
            Value::Array(allow),
        );
        set(
            &mut options,
            &["publicKey", "extensions", "prf"],
            self.prf_input(),
        );
        Ok((options, state))
    }

    /// Check the answer to [`RelyingParty::start_authentication`] with the
    /// credential that `account`'s envelope holds, and bring its counter and
    /// backup state up to date. On an error `passkey` is unchanged.
    ///
    /// About 0.4 ms of CPU: call it inline.
    pub fn finish_authentication(
        &self,
        body: &Value,
        state: &DiscoverableAuthentication,
        account: AccountId,
        passkey: &mut Passkey,
    ) -> Result<(), PasskeyError> {
        let answer: PublicKeyCredential = body::read(body, &self.origins)?;
        if answer
            .get_user_unique_id()
            .is_some_and(|handle| handle != account.as_bytes())
        {
            return Err(PasskeyError::OtherAccount);
        }
        let result = self.webauthn.finish_discoverable_authentication_v2(
            &answer,
            state.clone(),
            &*passkey,
        )?;
        // The state asks for it and the library obeys; a promise this important
        // is worth reading twice.
        if !result.user_verified() {
            return Err(PasskeyError::UserNotVerified);
        }
        passkey.update_credential(&result);
        Ok(())
    }

    fn prf_input(&self) -> Value {
        json!({ "eval": { "first": self.prf_salt } })
    }
}

/// An origin exactly as a browser writes it (RFC 6454, section 6.2).
fn origin(text: &str) -> Result<Url, PasskeyError> {
    let refuse = |why: String| PasskeyError::Misconfigured(format!("origin {text}: {why}"));
    let url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
    let written = url.origin().ascii_serialization();
    if written != text {
        return Err(refuse(format!("a browser writes it {written}")));
    }
    Ok(url)
}

fn misfit(id: &str, url: &Url) -> PasskeyError {
    PasskeyError::Misconfigured(format!(
        "id {id} is neither the host of {url} nor a parent of it"
    ))
}

/// No attestation is asked for and none decides anything, so none is kept: it
/// may be long, and names the make of somebody's authenticator. Nor are the
/// transports, a list as long as its sender likes and no option here uses it.
fn without_attestation(passkey: Passkey) -> Passkey {
    let mut credential = Credential::from(passkey);
    credential.attestation = ParsedAttestation::default();
    credential.attestation_format = AttestationFormat::None;
    credential.transports = None;
    Passkey::from(credential)
}

fn to_json(options: &impl serde::Serialize) -> Result<Value, PasskeyError> {
    serde_json::to_value(options).map_err(|error| PasskeyError::Invalid(error.to_string()))
}

/// Set a member of nested objects, making those that are missing.
fn set(value: &mut Value, path: &[&str], to: Value) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut at = value;
    for member in parents {
        let Some(members) = at.as_object_mut() else {
            return;
        };
        at = members.entry(*member).or_insert_with(|| json!({}));
    }
    if let Some(members) = at.as_object_mut() {
        members.insert((*last).to_string(), to);
    }
}
