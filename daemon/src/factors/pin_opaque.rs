//! PINs by OPAQUE (RFC 9807): the PIN never leaves the client, and nothing here can be guessed at
//! without the token.
//!
//! Called by `service/`. A registration is one evaluation, [`OpaqueServer::register`], and then the
//! record that the client made. A login is two messages: [`OpaqueServer::login`] answers the
//! first one, and [`Awaited::is_answered_by`] judges the second. It is the first that is the
//! guess: a client knows from the answer whether its PIN was right, and the server does not. So the
//! charge is durable before `login` is called, and a right second message is what refunds it.
//!
//! ristretto255 with SHA-512, 3DH, no context and no identifiers: what `@serenity-kit/opaque` speaks. The
//! key of each record's OPRF comes from the token and is used for that record only. It must never be
//! used for anybody who has not paid: with an answer of before, free evaluations are free guesses. A
//! stranger is therefore answered from a record under another key ([`OpaqueServer::decoy`]), which is the same
//! for ever and costs the same. The session key is of no use here and is wiped.

mod host_random;
mod record;
#[cfg(test)]
mod tests;

use custodyd_hsm::{Secret, SecretBytes};
use opaque_ke::generic_array::GenericArray;
use opaque_ke::key_exchange::group::Group;
use opaque_ke::key_exchange::tripledh::DiffieHellman;
use opaque_ke::keypair::{KeyPair, PublicKey};
use opaque_ke::rand::{CryptoRng, RngCore};
use opaque_ke::{
    CipherSuite, CredentialFinalization, CredentialRequest, RegistrationRequest, Ristretto255,
    ServerLogin, ServerLoginParameters, ServerRegistration, ServerSetup, TripleDh,
};
use zeroize::Zeroizing;

use self::host_random::HostRandom;
pub use self::record::{OpaqueRecord, OpaqueSalt};
use super::{RandomFailed, sha256_fields};
use crate::bytes::SharedSecret;

/// Bytes of the seed that the realm's AKE key pair is derived from.
pub const SEED: usize = 32;
/// Bytes of the messages (RFC 9807, section 6), by their names there.
pub const REGISTRATION_REQUEST: usize = 32;
pub const REGISTRATION_RECORD: usize = 192;
pub const KE1: usize = 96;
pub const KE2: usize = 320;
pub const KE3: usize = 64;
/// Bytes of what the third message must be.
const EXPECTED: usize = 64;

/// The suite, with no key stretching: that is the client's.
#[derive(Clone, Copy, Debug)]
struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = opaque_ke::ksf::Identity;
}

/// Stands for a key that the library is not to have: the OPRF seed is the token's MAC key.
#[derive(Clone, Copy)]
struct Elsewhere;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OpaqueError {
    /// Not a message of this protocol. Depends on the message alone.
    #[error(
        "{what} is not one of OPAQUE with ristretto255: send what the client's library made, {bytes} bytes in base64url"
    )]
    Message {
        /// Which one.
        what: &'static str,
        /// How long it has to be.
        bytes: usize,
    },
    /// The host gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// A defect, or a stored record that is none.
    #[error("OPAQUE: could not {0}")]
    Library(&'static str),
}

/// The realm's side of the key exchange.
pub struct OpaqueServer {
    setup: ServerSetup<Suite, Elsewhere, Elsewhere>,
    /// The AKE private key.
    private_key: <Ristretto255 as Group>::Sk,
    /// The client's public key in the records of strangers. Nobody has its private key.
    nobody: GenericArray<u8, <Ristretto255 as Group>::PkLen>,
}

impl std::fmt::Debug for OpaqueServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpaqueServer").finish_non_exhaustive()
    }
}

/// The answer to a login's first message, and what its last one has to be.
#[derive(Debug)]
pub struct LoginAnswer {
    /// KE2, for the client.
    pub ke2: Vec<u8>,
    /// For the server alone.
    pub awaited: Awaited,
}

/// The client's MAC that ends a login. Whoever has it needs no PIN for this one login.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Awaited(SharedSecret);

impl OpaqueServer {
    /// From the realm's seed, by DeriveDiffieHellmanKeyPair (RFC 9807, section 6.4.1).
    pub fn from_seed(seed: &[u8]) -> Result<Self, OpaqueError> {
        let private_key = scalar("custodyd/opaque-ake/v1", seed)?;
        let nobody = scalar("custodyd/opaque-nobody/v1", seed)?;
        let nobody = Ristretto255::serialize_pk(&Ristretto255::public_key(&nobody));
        Self::with_keys(private_key, nobody)
    }

    fn with_keys(
        private_key: <Ristretto255 as Group>::Sk,
        nobody: GenericArray<u8, <Ristretto255 as Group>::PkLen>,
    ) -> Result<Self, OpaqueError> {
        let public_key = Ristretto255::serialize_pk(&Ristretto255::public_key(&private_key));
        let public_key = PublicKey::deserialize(&public_key)
            .map_err(|_| OpaqueError::Library("derive the realm's key pair"))?;
        let key_pair = KeyPair::new(Elsewhere, public_key);
        // The library draws a stranger's key here, which is another one after each start: not used.
        let mut random = HostRandom::default();
        let setup = ServerSetup::new_with_key_pair_and_seed(&mut random, key_pair, Elsewhere);
        random.worked()?;
        Ok(Self {
            setup,
            private_key,
            nobody,
        })
    }

    /// Evaluates the OPRF for a new record: `key` is of that record, which has no PIN yet.
    pub fn register(
        &self,
        key: &Secret<32>,
        request: &RegistrationStart,
    ) -> Result<Vec<u8>, OpaqueError> {
        let key = GenericArray::clone_from_slice(key.expose());
        ServerRegistration::start_with_key_material(&self.setup, key, request.0.clone())
            .map(|started| started.message.serialize().to_vec())
            .map_err(|_| OpaqueError::Library("evaluate a registration"))
    }

    /// Answers the first message of a login at this record, whose `key` it is. Only after the guess was charged.
    pub fn login(
        &self,
        key: &Secret<32>,
        record: &OpaqueRecord,
        ke1: &LoginRequest,
    ) -> Result<LoginAnswer, OpaqueError> {
        let parameters = ServerLoginParameters::default();
        let mut random = HostRandom::default();
        let answer = self.answer(key.expose(), record.expose(), ke1, parameters, &mut random)?;
        random.worked()?;
        Ok(answer)
    }

    /// The same for somebody who may not try: from a record that `seed` makes, and nobody registered.
    pub fn decoy(&self, seed: &Secret<32>, ke1: &LoginRequest) -> Result<LoginAnswer, OpaqueError> {
        let part = |number: u8| {
            let fields = [seed.expose().as_slice(), &[number]];
            Zeroizing::new(sha256_fields("custodyd/opaque-decoy-part/v1", &fields))
        };
        let mut record = Zeroizing::new(Vec::with_capacity(REGISTRATION_RECORD));
        record.extend_from_slice(&self.nobody);
        record.extend_from_slice(&*part(1));
        record.extend_from_slice(&*part(2));
        // RFC 9807, section 10.9: an envelope of zeros, which the masking key hides.
        record.resize(REGISTRATION_RECORD, 0);
        let parameters = ServerLoginParameters::default();
        let mut random = HostRandom::default();
        let answer = self.answer(&part(0), &record, ke1, parameters, &mut random)?;
        random.worked()?;
        Ok(answer)
    }

    fn answer(
        &self,
        key: &[u8; 32],
        record: &[u8],
        ke1: &LoginRequest,
        parameters: ServerLoginParameters<'_, '_>,
        random: &mut (impl RngCore + CryptoRng),
    ) -> Result<LoginAnswer, OpaqueError> {
        let failed = |_| OpaqueError::Library("answer a login");
        let builder = ServerLogin::builder_with_key_material(
            random,
            &self.setup,
            GenericArray::clone_from_slice(key),
            Some(ServerRegistration::deserialize(record).map_err(failed)?),
            ke1.0.clone(),
            parameters,
        )
        .map_err(failed)?;
        let shared = self
            .private_key
            .diffie_hellman(builder.data().to_group_type());
        let answered = builder.build(shared).map_err(failed)?;
        // The session key comes first; with zeros in its place the rest judges the last message all the same.
        let state = Zeroizing::new(answered.state.serialize().to_vec());
        let expected = state.last_chunk::<EXPECTED>();
        let expected = expected.ok_or(OpaqueError::Library("take a login's end"))?;
        Ok(LoginAnswer {
            ke2: answered.message.serialize().to_vec(),
            awaited: Awaited(SharedSecret::new(SecretBytes::init(EXPECTED, |to| {
                to.copy_from_slice(expected);
            }))),
        })
    }
}

/// A request of a registration that is well formed.
pub struct RegistrationStart(RegistrationRequest<Suite>);

impl std::fmt::Debug for RegistrationStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistrationStart")
    }
}

impl RegistrationStart {
    /// Looks at the message alone.
    pub fn parse(request: &[u8]) -> Result<Self, OpaqueError> {
        let (what, bytes) = ("the registration request", REGISTRATION_REQUEST);
        RegistrationRequest::deserialize(sized(request, what, bytes)?)
            .map(Self)
            .map_err(|_| OpaqueError::Message { what, bytes })
    }
}

/// A first message that is well formed.
pub struct LoginRequest(CredentialRequest<Suite>);

impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginRequest")
    }
}

impl LoginRequest {
    /// Looks at the message alone, so that it can be refused before anything is charged.
    pub fn parse(ke1: &[u8]) -> Result<Self, OpaqueError> {
        let what = "the login request (KE1)";
        CredentialRequest::deserialize(sized(ke1, what, KE1)?)
            .map(Self)
            .map_err(|_| OpaqueError::Message { what, bytes: KE1 })
    }
}

impl Awaited {
    /// Whether the client's last message is the one that only the right PIN gives. In constant time.
    pub fn is_answered_by(&self, ke3: &LoginFinish) -> bool {
        let mut state = Zeroizing::new([0; 2 * EXPECTED]);
        let Some((_, expected)) = state.split_at_mut_checked(EXPECTED) else {
            return false;
        };
        if expected.len() != self.0.len() {
            return false;
        }
        expected.copy_from_slice(self.0.expose());
        let login = ServerLogin::<Suite>::deserialize(state.as_slice());
        login.is_ok_and(|login| {
            let message = ke3.0.clone();
            login
                .finish(message, ServerLoginParameters::default())
                .is_ok()
        })
    }
}

/// A last message that is well formed.
pub struct LoginFinish(CredentialFinalization<Suite>);

impl std::fmt::Debug for LoginFinish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginFinish")
    }
}

impl LoginFinish {
    /// Looks at the message alone.
    pub fn parse(ke3: &[u8]) -> Result<Self, OpaqueError> {
        let what = "the end of the login (KE3)";
        CredentialFinalization::deserialize(sized(ke3, what, KE3)?)
            .map(Self)
            .map_err(|_| OpaqueError::Message { what, bytes: KE3 })
    }
}

fn scalar(domain: &str, seed: &[u8]) -> Result<<Ristretto255 as Group>::Sk, OpaqueError> {
    let seed = Zeroizing::new(sha256_fields(domain, &[seed]));
    Ristretto255::derive_scalar(GenericArray::clone_from_slice(seed.as_slice()))
        .map_err(|_| OpaqueError::Library("derive the realm's key pair"))
}

/// The library cuts what is too long for it: here one message has one spelling.
fn sized<'m>(message: &'m [u8], what: &'static str, bytes: usize) -> Result<&'m [u8], OpaqueError> {
    if message.len() == bytes {
        Ok(message)
    } else {
        Err(OpaqueError::Message { what, bytes })
    }
}
