//! Bindings: the realm's signed statement that a credential belongs to an account.
//!
//! Made in the token when a credential is added, kept in the envelope, given to the client as
//! a receipt, and checked at every use against the credential that is about to be believed.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::digest;
use custodyd_hsm::binding::{self, Binding, BindingKeys, BindingKind};
use custodyd_hsm::{AccountId, AppId, Pool, PublicKey, RealmName, jwk_set};
use custodyd_policies::Timestamp;

use super::Refused;
use crate::account::Account;
use crate::generations::Generations;

/// Signatures that verified are remembered by the hash of the whole statement, so many of them:
/// verifying is a pure function of public values, so remembering its result trusts nothing new.
const REMEMBERED: usize = 100_000;

#[derive(Debug)]
pub struct Bindings {
    pool: Pool,
    realm: RealmName,
    /// Of bindings and of calls to a webhook. A rotation changes them.
    keys: RwLock<(Arc<BindingKeys>, Vec<PublicKey>)>,
    verified: Mutex<Generations<[u8; 32], Arc<Binding>>>,
}

impl Bindings {
    #[must_use]
    pub fn new(
        pool: Pool,
        realm: RealmName,
        keys: BindingKeys,
        webhook_keys: Vec<PublicKey>,
    ) -> Self {
        Self {
            pool,
            realm,
            keys: RwLock::new((Arc::new(keys), webhook_keys)),
            verified: Mutex::new(Generations::new(REMEMBERED)),
        }
    }

    /// The realm's public keys (RFC 7517), for everybody who verifies receipts or calls to a
    /// webhook. Each kind has a `typ` of its own, so no key stands for the other's statements.
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        let (bindings, webhook) = self.known();
        let newest_first = bindings.keys().iter().rev();
        jwk_set(newest_first.chain(webhook.iter().rev()))
    }

    fn known(&self) -> (Arc<BindingKeys>, Vec<PublicKey>) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// From now on these keys are known and no others. What verified before is asked again.
    pub(super) fn know(&self, bindings: BindingKeys, webhook: Vec<PublicKey>) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *keys = (Arc::new(bindings), webhook);
        drop(keys);
        if let Ok(mut verified) = self.verified.lock() {
            *verified = Generations::new(REMEMBERED);
        }
    }

    /// Signs several bindings of one account in one visit to the token.
    pub(super) async fn sign<const N: usize>(
        &self,
        app: &AppId,
        account: AccountId,
        credentials: [(BindingKind, String); N],
        now: Timestamp,
    ) -> Result<[String; N], Refused> {
        let statements = credentials.map(|(kind, device_id)| Binding {
            realm: self.realm.clone(),
            app: app.clone(),
            account,
            device_id,
            kind,
            issued: now.0,
        });
        let signed = self
            .pool
            .call("sign-binding", move |custody| {
                let mut signed = Vec::with_capacity(N);
                for statement in &statements {
                    signed.push(binding::sign(custody, statement)?);
                }
                Ok(signed)
            })
            .await?;
        signed
            .try_into()
            .map_err(|_| Refused::Internal("sign bindings"))
    }

    /// The binding must be ours, and say exactly this about exactly this credential.
    pub(super) fn check(
        &self,
        account: &Account,
        kind: BindingKind,
        device_id: &str,
        jws: &str,
    ) -> Result<(), Refused> {
        self.read(account, kind, device_id, jws).map(drop)
    }

    /// As `check`, and gives the statement out.
    pub(super) fn read(
        &self,
        account: &Account,
        kind: BindingKind,
        device_id: &str,
        jws: &str,
    ) -> Result<Arc<Binding>, Refused> {
        let statement = self.verify(jws)?;
        let right = statement.realm == self.realm
            && statement.app == account.app
            && statement.account == account.id
            && statement.kind == kind
            && statement.device_id == device_id;
        if right {
            Ok(statement)
        } else {
            Err(Refused::Tampered(
                "a binding is about another credential".into(),
            ))
        }
    }

    fn verify(&self, jws: &str) -> Result<Arc<Binding>, Refused> {
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, jws.as_bytes()).as_ref());
        if let Ok(verified) = self.verified.lock()
            && let Some(known) = verified.get(&key)
        {
            return Ok(Arc::clone(known));
        }
        let statement = self
            .known()
            .0
            .verify(jws)
            .map(Arc::new)
            .map_err(|e| Refused::Tampered(format!("a binding does not verify: {e}")))?;
        if let Ok(mut verified) = self.verified.lock() {
            verified.put(key, Arc::clone(&statement), 1);
        }
        Ok(statement)
    }
}
