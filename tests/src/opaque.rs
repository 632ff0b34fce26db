//! A client of OPAQUE, over the library that `@serenity-kit/opaque` is built from, with Argon2id as its key stretching.
//! It keeps the messages of a login apart, so that a test can hold one back, send it twice, or send another's.

use argon2::{Algorithm, Argon2, Params, Version};
use opaque_ke::errors::InternalError;
use opaque_ke::generic_array::{ArrayLength, GenericArray};
use opaque_ke::ksf::Ksf;
use opaque_ke::rand::{CryptoRng, Error, RngCore};
use opaque_ke::{
    CipherSuite, ClientLogin, ClientLoginFinishParameters, ClientRegistration,
    ClientRegistrationFinishParameters, CredentialFinalization, CredentialRequest,
    CredentialResponse, RegistrationResponse, Ristretto255, ServerLogin, ServerLoginParameters,
    ServerRegistration, ServerSetup, TripleDh,
};
use serde_json::{Value, json};

use crate::device::{b64, unb64};
use crate::{Answer, Device};

/// The suite of `@serenity-kit/opaque`.
#[derive(Debug)]
pub struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = Stretching;
}

/// Argon2id with a salt of zeros; or nothing at all, for a bench of the server.
#[derive(Debug)]
pub struct Stretching(Option<Params>);

impl Default for Stretching {
    fn default() -> Self {
        Self::of(&default_cost())
    }
}

/// The policies' default.
#[must_use]
pub fn default_cost() -> Value {
    json!({"memory_kib": 19456, "passes": 2, "lanes": 1})
}

impl Stretching {
    #[must_use]
    pub fn of(cost: &Value) -> Self {
        let number = |name: &str| u32::try_from(cost[name].as_u64().unwrap()).unwrap();
        let (memory, passes, lanes) = (number("memory_kib"), number("passes"), number("lanes"));
        Self(Some(Params::new(memory, passes, lanes, Some(64)).unwrap()))
    }
}

impl Ksf for Stretching {
    fn hash<L: ArrayLength<u8>>(
        &self,
        input: GenericArray<u8, L>,
    ) -> Result<GenericArray<u8, L>, InternalError> {
        let Some(params) = &self.0 else {
            return Ok(input);
        };
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let mut output = GenericArray::default();
        argon2
            .hash_password_into(&input, &[0; 16], &mut output)
            .map_err(|_| InternalError::KsfError)?;
        Ok(output)
    }
}

struct Random;

impl CryptoRng for Random {}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }
    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }
    fn fill_bytes(&mut self, to: &mut [u8]) {
        aws_lc_rs::rand::fill(to).unwrap();
    }
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

/// A registration between its two calls.
#[allow(missing_debug_implementations, reason = "it holds a PIN")]
pub struct Registering(ClientRegistration<Suite>);

/// What a registration gives the client.
#[derive(Debug)]
pub struct Registered {
    /// The body of the second call.
    pub body: Value,
    pub export_key: Vec<u8>,
}

impl Registering {
    /// The state, and the body of the first call.
    #[must_use]
    pub fn start(pin: &str) -> (Self, Value) {
        let started = ClientRegistration::start(&mut Random, pin.as_bytes()).unwrap();
        let request = b64(&started.message.serialize());
        (Self(started.state), json!({"request": request}))
    }

    /// With what the first call was answered.
    #[must_use]
    pub fn finish(self, pin: &str, answer: &Value, cost: &Value) -> Registered {
        self.made(pin, answer, cost, &Stretching::of(cost))
    }

    /// Of a client that lies about what it has spent, for a bench of servers.
    #[must_use]
    pub fn finish_unstretched(self, pin: &str, answer: &Value) -> Registered {
        self.made(pin, answer, &default_cost(), &Stretching(None))
    }

    fn made(self, pin: &str, answer: &Value, cost: &Value, ksf: &Stretching) -> Registered {
        let response = unb64(answer["response"].as_str().unwrap());
        let parameters = ClientRegistrationFinishParameters {
            ksf: Some(ksf),
            ..ClientRegistrationFinishParameters::default()
        };
        let response = RegistrationResponse::deserialize(&response).unwrap();
        let finished = self
            .0
            .finish(&mut Random, pin.as_bytes(), response, parameters)
            .unwrap();
        let record = b64(&finished.message.serialize());
        let body = json!({
            "registration": answer["registration"], "record": record, "key_stretching": cost,
        });
        Registered {
            body,
            export_key: finished.export_key.to_vec(),
        }
    }
}

/// A login between its two calls.
#[allow(missing_debug_implementations, reason = "it holds a PIN")]
pub struct LoggingIn {
    state: ClientLogin<Suite>,
    pin: String,
    pub ke1: String,
}

/// What a right PIN gives the client.
#[derive(Debug)]
pub struct LoggedIn {
    pub ke3: String,
    pub export_key: Vec<u8>,
}

impl LoggingIn {
    #[must_use]
    pub fn start(pin: &str) -> Self {
        let started = ClientLogin::start(&mut Random, pin.as_bytes()).unwrap();
        Self {
            state: started.state,
            pin: pin.to_owned(),
            ke1: b64(&started.message.serialize()),
        }
    }

    /// With what the first call was answered: `None` where the PIN is wrong.
    #[must_use]
    pub fn finish(&self, answer: &Value) -> Option<LoggedIn> {
        self.made(answer, &Stretching::of(&answer["key_stretching"]))
    }

    /// Of a PIN that was registered without stretching.
    #[must_use]
    pub fn finish_unstretched(&self, answer: &Value) -> Option<LoggedIn> {
        self.made(answer, &Stretching(None))
    }

    fn made(&self, answer: &Value, ksf: &Stretching) -> Option<LoggedIn> {
        let ke2 = unb64(answer["ke2"].as_str().unwrap());
        let parameters = ClientLoginFinishParameters {
            ksf: Some(ksf),
            ..ClientLoginFinishParameters::default()
        };
        let ke2 = CredentialResponse::deserialize(&ke2).unwrap();
        let finished = self
            .state
            .clone()
            .finish(&mut Random, self.pin.as_bytes(), ke2, parameters)
            .ok()?;
        Some(LoggedIn {
            ke3: b64(&finished.message.serialize()),
            export_key: finished.export_key.to_vec(),
        })
    }
}

/// The server's part of logins, by the library alone: for a bench.
#[allow(missing_debug_implementations, reason = "it holds keys")]
pub struct Protocol {
    setup: ServerSetup<Suite>,
    record: Vec<u8>,
    ke1: Vec<u8>,
}

impl Protocol {
    #[must_use]
    pub fn new(pin: &str) -> Self {
        let setup = ServerSetup::<Suite>::new(&mut Random);
        let started = ClientRegistration::<Suite>::start(&mut Random, pin.as_bytes()).unwrap();
        let response = ServerRegistration::start(&setup, started.message, b"ann").unwrap();
        let ksf = Stretching(None);
        let parameters = ClientRegistrationFinishParameters {
            ksf: Some(&ksf),
            ..ClientRegistrationFinishParameters::default()
        };
        let finished = started
            .state
            .finish(&mut Random, pin.as_bytes(), response.message, parameters)
            .unwrap();
        let login = ClientLogin::<Suite>::start(&mut Random, pin.as_bytes()).unwrap();
        Self {
            setup,
            record: finished.message.serialize().to_vec(),
            ke1: login.message.serialize().to_vec(),
        }
    }

    /// One login: the answer to its first message, and a look at its last one, which is wrong and costs the same.
    ///
    /// # Panics
    /// If the library refuses the first message.
    pub fn serve(&self) {
        let answered = ServerLogin::start(
            &mut Random,
            &self.setup,
            Some(ServerRegistration::deserialize(&self.record).unwrap()),
            CredentialRequest::deserialize(&self.ke1).unwrap(),
            b"ann",
            ServerLoginParameters::default(),
        )
        .unwrap();
        std::hint::black_box(answered.message.serialize());
        let end = CredentialFinalization::deserialize(&[7; 64]).unwrap();
        let parameters = ServerLoginParameters::default();
        assert!(answered.state.finish(end, parameters).is_err());
    }
}

/// The PIN as a client may have it.
#[derive(Debug)]
pub struct Tried {
    /// The answer to the first call.
    pub started: Value,
    /// What the library made of it.
    pub ended: Option<LoggedIn>,
}

impl Device {
    /// Both calls of a registration, with the policy's cost; the export key.
    pub async fn register_pin(&mut self, pin: &str) -> Vec<u8> {
        self.register(pin, Stretching::of(&default_cost())).await
    }

    /// The same of a client that lies about what it has spent.
    pub async fn register_unstretched_pin(&mut self, pin: &str) -> Vec<u8> {
        self.register(pin, Stretching(None)).await
    }

    async fn register(&mut self, pin: &str, ksf: Stretching) -> Vec<u8> {
        let (state, body) = Registering::start(pin);
        let started = self
            .call("POST", "/v1/account/opaque/start", Some(body))
            .await
            .expect(200);
        let registered = state.made(pin, &started.body, &default_cost(), &ksf);
        let answer = self
            .call(
                "POST",
                "/v1/account/opaque/finish",
                Some(registered.body.clone()),
            )
            .await
            .expect(200);
        self.take_session(&answer);
        registered.export_key
    }

    /// The first call of a login.
    pub async fn start_opaque(&mut self, login: &LoggingIn) -> Answer {
        self.token = None;
        let body = json!({"account": self.account, "ke1": login.ke1});
        self.call("POST", "/v1/apps/{app}/sessions/opaque/start", Some(body))
            .await
    }

    /// The first call alone, with any answer.
    pub async fn try_opaque_start(&mut self, pin: &str) -> Answer {
        self.start_opaque(&LoggingIn::start(pin)).await
    }

    /// The first call of a login that is answered, and what the client makes of it.
    pub async fn begin_opaque(&mut self, pin: &str) -> Tried {
        let login = LoggingIn::start(pin);
        let started = self.start_opaque(&login).await.expect(200).body;
        let ended = login.finish(&started);
        Tried { started, ended }
    }

    /// The last call of a login, with any end.
    pub async fn finish_opaque(&mut self, login: &Value, ke3: &str, release: &[&str]) -> Answer {
        self.token = None;
        let body = json!({"login": login, "ke3": ke3, "release": release});
        let answer = self
            .call("POST", "/v1/apps/{app}/sessions/opaque/finish", Some(body))
            .await;
        if answer.status == 201 {
            self.take_session(&answer);
        }
        answer
    }

    /// Both calls, as an honest client makes them: a wrong PIN ends with the first.
    pub async fn sign_in_by_opaque(&mut self, pin: &str, release: &[&str]) -> Option<Answer> {
        let tried = self.begin_opaque(pin).await;
        let ke3 = tried.ended?.ke3;
        let login = &tried.started["login"];
        Some(self.finish_opaque(login, &ke3, release).await)
    }
}
