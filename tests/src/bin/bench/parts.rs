//! The necessary parts of a recovery, each by itself: no network, no daemon around it.
//!
//! The library is called as directly as it can be: the token without a queue, Argon2id with
//! memory that is there already, the assertion as parsed JSON.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use custodyd::factors::dpop::{Expected, Proofs};
use custodyd_hsm::backend::pkcs11::Pkcs11Backend;
use custodyd_hsm::{
    AppId, Backend, Custody, KeyId, KeyPurpose, Pool, PoolOptions, RealmName, RecordKind, mac,
};
use custodyd_policies::{PinPolicy, Timestamp};
use custodyd_tests::SoftAuthenticator;
use custodyd_tests::app::REALM;
use custodyd_tests::device::{self, Device};
use custodyd_tests::token::SoftToken;
use serde_json::json;
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey, PublicKeyCredential, RegisterPublicKeyCredential, Uuid,
    Webauthn, WebauthnBuilder,
};

use crate::cpu::{Sample, cores, on_all_cores};

/// Proofs made ahead of each measurement: making one costs about as much as checking it.
const PROOFS: usize = 12_000;
/// About the length of a passkey login.
const BODY: [u8; 1024] = [b'x'; 1024];
const LABEL: &[u8] = b"custodyd/record/v1";

#[allow(
    missing_debug_implementations,
    reason = "holds foreign types without it"
)]
pub(crate) struct Parts {
    custodies: Vec<Mutex<Box<dyn Custody>>>,
    pool: Pool,
    assertion: Assertion,
}

/// A signed assertion and what it is checked against.
struct Assertion {
    webauthn: Webauthn,
    passkey: Passkey,
    state: DiscoverableAuthentication,
    answer: PublicKeyCredential,
}

impl Parts {
    pub(crate) fn new(token: &Path) -> Self {
        let options = SoftToken::attach(token).options();
        let backend: Arc<dyn Backend> = Arc::new(Pkcs11Backend::new(options));
        let custodies = (0..cores())
            .map(|_| Mutex::new(backend.open().unwrap()))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Self {
            custodies,
            pool: Pool::start(backend, PoolOptions::default()).unwrap(),
            assertion: runtime.unwrap().block_on(Assertion::made()),
        }
    }

    /// One HMAC in the token, as a recovery asks for them: a third of them identifiers, the
    /// others keys of records.
    pub(crate) fn token(&self, lasting: Duration) -> Sample {
        on_all_cores(lasting, usize::MAX, |worker, index| {
            let mut custody = self.custodies[worker].lock().unwrap();
            operation(custody.as_mut(), index);
        })
    }

    /// Derivations alone, as sealing or opening a record asks for one.
    pub(crate) fn derivations(&self, lasting: Duration) -> Sample {
        on_all_cores(lasting, usize::MAX, |worker, _| {
            let mut custody = self.custodies[worker].lock().unwrap();
            // Of a newer one this process, which has its own view of the token, knows nothing.
            let key = KeyId::new(KeyPurpose::Wrap, 1);
            custody.derive(key, LABEL, &[6; 32]).unwrap();
        })
    }

    /// The same through the pool: with its queue and its change of threads.
    pub(crate) fn pool(&self, lasting: Duration) -> Sample {
        on_all_cores(lasting, usize::MAX, |_, index| {
            let job = move |custody: &mut dyn Custody| {
                operation(custody, index);
                Ok(())
            };
            self.pool.blocking_call("bench", job).unwrap();
        })
    }

    /// The whole check of a proof, its body included. `device` is any client.
    pub(crate) fn dpop(&self, lasting: Duration, mut device: Device) -> Sample {
        let proofs = Proofs::new().unwrap();
        let now = Timestamp(device::now());
        device.nonce = proofs.nonce(now);
        let path = "/v1/apps/notes/sessions/passkey";
        let mut call = device.prepare("POST", path, Some(json!({})));
        call.body = Some(BODY.to_vec());
        let made: Vec<String> = (0..PROOFS).map(|_| device.proof(&call)).collect();
        let uri = format!("{}{path}", device.url);
        let expected = Expected {
            method: "POST",
            uri: &uri,
            session_token: None,
            body: Some(&BODY),
        };
        on_all_cores(lasting, PROOFS, |_, index| {
            proofs.verify(now, &expected, &made[index]).unwrap();
        })
    }

    pub(crate) fn assertion(&self, lasting: Duration) -> Sample {
        let of = &self.assertion;
        on_all_cores(lasting, usize::MAX, |_, _| {
            of.webauthn
                .finish_discoverable_authentication_v2(&of.answer, of.state.clone(), &of.passkey)
                .unwrap();
        })
    }

    /// With the parameters of a policy that names none, and memory that is used again.
    pub(crate) fn argon2(&self, lasting: Duration) -> Sample {
        let policy = PinPolicy::default();
        let params = Params::new(policy.memory_kib, policy.passes, policy.lanes, Some(32));
        let params = params.unwrap();
        let memory: Vec<_> = (0..cores())
            .map(|_| Mutex::new(vec![Block::default(); params.block_count()]))
            .collect();
        // Touched once, so that no page is new to the measured hashes.
        for blocks in &memory {
            hash(&params, &mut blocks.lock().unwrap());
        }
        on_all_cores(lasting, usize::MAX, |worker, _| {
            hash(&params, &mut memory[worker].lock().unwrap());
        })
    }
}

fn hash(params: &Params, blocks: &mut [Block]) {
    let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
    let argon2 = Argon2::new_with_secret(&[3; 32], algorithm, version, params.clone()).unwrap();
    let mut tag = [0; 32];
    argon2
        .hash_password_into_with_memory(b"583926", &[2; 16], &mut tag, blocks)
        .unwrap();
}

fn operation(custody: &mut dyn Custody, index: usize) {
    if index.is_multiple_of(3) {
        let realm = RealmName::parse(REALM).unwrap();
        let app = AppId::parse("notes").unwrap();
        mac::record_id(custody, &realm, &app, RecordKind::Account, &[5; 16]).unwrap();
    } else {
        let key = custody.current(KeyPurpose::Wrap).unwrap();
        custody.derive(key, LABEL, &[6; 32]).unwrap();
    }
}

impl Assertion {
    async fn made() -> Self {
        let mut authenticator = SoftAuthenticator::new("notes");
        let webauthn = WebauthnBuilder::new("notes.example.com", &authenticator.origin)
            .unwrap()
            .build()
            .unwrap();
        let (options, state) = webauthn
            .start_passkey_registration(Uuid::from_u128(1), "bench", "bench", None)
            .unwrap();
        let mut options = serde_json::to_value(options).unwrap();
        options["publicKey"]["authenticatorSelection"]["residentKey"] = json!("required");
        options["publicKey"]["authenticatorSelection"]["requireResidentKey"] = json!(true);
        let made = authenticator.create(&options["publicKey"]).await;
        let made: RegisterPublicKeyCredential = serde_json::from_value(made).unwrap();
        let passkey = webauthn.finish_passkey_registration(&made, &state).unwrap();
        let (options, state) = webauthn.start_discoverable_authentication().unwrap();
        let options = serde_json::to_value(options).unwrap();
        let answer = authenticator.get(&options["publicKey"]).await;
        Self {
            webauthn,
            passkey,
            state,
            answer: serde_json::from_value(answer).unwrap(),
        }
    }
}
