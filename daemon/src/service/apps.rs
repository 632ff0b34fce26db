//! The apps that this daemon serves: each one's policy and its WebAuthn relying party.

use std::collections::BTreeMap;
use std::sync::Arc;

use custodyd_hsm::{AppId, RealmName};
use custodyd_policies::AppPolicy;

use super::Refused;
use crate::factors::passkey::{PasskeyError, RelyingParty, prf_salt};

#[derive(Debug)]
pub struct App {
    pub id: AppId,
    pub policy: AppPolicy,
    pub relying_party: RelyingParty,
}

#[derive(Debug)]
pub struct Apps(BTreeMap<AppId, Arc<App>>);

impl Apps {
    /// # Errors
    /// When a policy's relying party is one that WebAuthn can not have.
    pub fn new(
        realm: &RealmName,
        policies: BTreeMap<AppId, AppPolicy>,
    ) -> Result<Self, PasskeyError> {
        policies
            .into_iter()
            .map(|(id, policy)| {
                let relying_party = RelyingParty::new(&policy, prf_salt(realm, &id))?;
                let app = App {
                    id: id.clone(),
                    policy,
                    relying_party,
                };
                Ok((id, Arc::new(app)))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// # Errors
    /// `UnknownApp`; apps are public, so saying so gives nothing away.
    pub fn get(&self, name: &str) -> Result<Arc<App>, Refused> {
        AppId::parse(name)
            .ok()
            .and_then(|id| self.0.get(&id))
            .cloned()
            .ok_or_else(|| Refused::UnknownApp(name.chars().take(40).collect()))
    }

    /// Every origin that may use passkeys of the relying party `id` (WebAuthn Level 3, section
    /// 5.11.1). Empty where no app here has that identifier; several apps may share one.
    #[must_use]
    pub fn origins_of(&self, id: &str) -> Vec<&str> {
        let apps = self.0.values();
        let mut origins: Vec<&str> = Vec::new();
        for app in apps.filter(|app| app.policy.relying_party.id == id) {
            for origin in &app.policy.origins {
                if !origins.contains(&origin.as_str()) {
                    origins.push(origin);
                }
            }
        }
        origins
    }

    /// Whether any app here lists this origin.
    #[must_use]
    pub fn any_lists(&self, origin: &str) -> bool {
        self.0.values().any(|app| app.lists(origin))
    }
}

impl App {
    #[must_use]
    pub fn lists(&self, origin: &str) -> bool {
        self.policy.origins.iter().any(|listed| listed == origin)
    }

    /// A browser tells which page asks; a page of somebody else's is refused, whatever it holds.
    ///
    /// # Errors
    /// `OriginNotAllowed`.
    pub fn admits(&self, origin: Option<&str>) -> Result<(), Refused> {
        match origin {
            Some(origin) if !self.lists(origin) => Err(Refused::OriginNotAllowed(
                origin.chars().take(100).collect(),
            )),
            _ => Ok(()),
        }
    }
}
