//! A passkey and the browser in front of it, in software (crate `passkey`).

use passkey::authenticator::{Authenticator, UiHint, UserCheck, UserValidationMethod};
use passkey::client::{Client, DefaultClientData};
use passkey::crypto::aws_lc_rs::AwsLcRsBackend;
use passkey::types::Passkey;
use passkey::types::ctap2::{Aaguid, Ctap2Error};
use serde_json::{Value, json};
use url::Url;

use crate::{Answer, Device};

/// A user who is there, and says who they are if `verified`.
#[derive(Debug)]
struct User {
    verified: bool,
}

#[async_trait::async_trait]
impl UserValidationMethod for User {
    type PasskeyItem = Passkey;

    async fn check_user<'a>(
        &self,
        _: UiHint<'a, Passkey>,
        _: bool,
        _: bool,
    ) -> Result<UserCheck, Ctap2Error> {
        Ok(UserCheck {
            presence: true,
            verification: self.verified,
        })
    }

    fn is_presence_enabled(&self) -> bool {
        true
    }

    fn is_verification_enabled(&self) -> Option<bool> {
        Some(true)
    }
}

type Soft = Client<Option<Passkey>, User, AwsLcRsBackend, public_suffix::PublicSuffixList, ()>;

/// One passkey, for one app.
pub struct SoftAuthenticator {
    client: Soft,
    pub origin: Url,
}

impl std::fmt::Debug for SoftAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftAuthenticator({})", self.origin)
    }
}

impl SoftAuthenticator {
    #[must_use]
    pub fn new(app: &str) -> Self {
        let mut authenticator = Authenticator::new(
            Aaguid::new_empty(),
            None,
            User { verified: true },
            AwsLcRsBackend,
        );
        authenticator.set_make_credentials_with_signature_counter(true);
        Self {
            client: Client::new(authenticator),
            origin: format!("https://{app}.example.com").parse().unwrap(),
        }
    }

    /// A copy of the passkey as it stands now: what a thief would have.
    #[must_use]
    pub fn cloned(&self) -> Self {
        let store = self.client.authenticator().store().clone();
        let mut authenticator = Authenticator::new(
            Aaguid::new_empty(),
            store,
            User { verified: true },
            AwsLcRsBackend,
        );
        authenticator.set_make_credentials_with_signature_counter(true);
        Self {
            client: Client::new(authenticator),
            origin: self.origin.clone(),
        }
    }

    /// `navigator.credentials.create`
    pub async fn create(&mut self, options: &Value) -> Value {
        let request = serde_json::from_value(json!({"publicKey": options})).unwrap();
        let made = self
            .client
            .register(&self.origin, request, DefaultClientData)
            .await
            .unwrap();
        serde_json::to_value(made).unwrap()
    }

    /// `navigator.credentials.get`
    pub async fn get(&mut self, options: &Value) -> Value {
        let request = serde_json::from_value(json!({"publicKey": options})).unwrap();
        let made = self
            .client
            .authenticate(&self.origin, request, DefaultClientData)
            .await
            .unwrap();
        serde_json::to_value(made).unwrap()
    }
}

impl Device {
    /// Registers the passkey with this device's session; the answer holds its device id.
    pub async fn add_passkey(&mut self, authenticator: &mut SoftAuthenticator) -> Answer {
        let options = self
            .call("POST", "/v1/account/passkeys/options", Some(json!({})))
            .await;
        if options.status != 200 {
            return options;
        }
        let credential = authenticator.create(&options.body["publicKey"]).await;
        let body =
            json!({"ceremony": options.body["ceremony"], "credential": credential, "name": "soft"});
        self.call("POST", "/v1/account/passkeys", Some(body)).await
    }

    /// Asks for login options and lets the authenticator answer them.
    pub async fn assertion(
        &mut self,
        authenticator: &mut SoftAuthenticator,
        account: Option<&str>,
    ) -> Value {
        self.token = None;
        let options = self
            .call(
                "POST",
                "/v1/apps/{app}/sessions/passkey/options",
                Some(json!({"account": account})),
            )
            .await
            .expect(200);
        let credential = authenticator.get(&options.body["publicKey"]).await;
        json!({"ceremony": options.body["ceremony"], "credential": credential})
    }

    /// Signs in with a passkey; `more` is merged into the request.
    pub async fn try_passkey(
        &mut self,
        authenticator: &mut SoftAuthenticator,
        more: Value,
    ) -> Answer {
        let mut body = self.assertion(authenticator, None).await;
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.finish_passkey(body).await
    }

    pub async fn finish_passkey(&mut self, body: Value) -> Answer {
        let answer = self
            .call("POST", "/v1/apps/{app}/sessions/passkey", Some(body))
            .await;
        if answer.status == 201 {
            self.account = answer.body["account"].as_str().unwrap().to_owned();
            self.take_session(&answer);
        }
        answer
    }
}
