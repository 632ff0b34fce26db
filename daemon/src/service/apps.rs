//! The apps that this daemon serves: each one's policy and its WebAuthn relying party.
//!
//! Looked up by every request; replaced as a whole by a reload. A request keeps the app that it
//! began with, so it is judged by one policy from its beginning to its commit.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use custodyd_hsm::{AppId, RealmName};
use custodyd_policies::{AppPolicy, Retention, ServerSlot};
use serde::Serialize;

use super::Refused;
use crate::factors::passkey::{PasskeyError, RelyingParty, prf_salt};

#[derive(Debug)]
pub struct App {
    pub id: AppId,
    pub policy: AppPolicy,
    pub relying_party: RelyingParty,
}

/// Apps by name, whole and checked.
#[derive(Debug)]
pub struct Served(BTreeMap<AppId, Arc<App>>);

#[derive(Debug)]
pub struct Apps(RwLock<Arc<Served>>);

/// What a reload did to the apps, by name.
#[derive(Debug, Default, Serialize)]
pub struct Changes {
    pub added: Vec<AppId>,
    pub changed: Vec<AppId>,
    pub retired: Vec<AppId>,
}

impl Served {
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

    /// From `before` to these.
    fn changes(&self, before: &Self) -> Changes {
        let mut changes = Changes::default();
        for (id, app) in &self.0 {
            match before.0.get(id) {
                None => changes.added.push(id.clone()),
                Some(old) if old.policy != app.policy => changes.changed.push(id.clone()),
                Some(_) => {}
            }
        }
        let retired = before.0.keys().filter(|id| !self.0.contains_key(*id));
        changes.retired.extend(retired.cloned());
        changes
    }
}

impl Apps {
    /// # Errors
    /// When a policy's relying party is one that WebAuthn can not have.
    pub fn new(
        realm: &RealmName,
        policies: BTreeMap<AppId, AppPolicy>,
    ) -> Result<Self, PasskeyError> {
        Ok(Self(RwLock::new(Arc::new(Served::new(realm, policies)?))))
    }

    /// Serves these from now on. What is under way goes on under the app it began with.
    pub fn replace(&self, served: Served) -> Changes {
        let served = Arc::new(served);
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changes = served.changes(&current);
        *current = served;
        changes
    }

    fn current(&self) -> Arc<Served> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// # Errors
    /// `UnknownApp`; apps are public, so saying so gives nothing away.
    pub fn get(&self, name: &str) -> Result<Arc<App>, Refused> {
        AppId::parse(name)
            .ok()
            .and_then(|id| self.current().0.get(&id).cloned())
            .ok_or_else(|| Refused::UnknownApp(name.chars().take(40).collect()))
    }

    /// Every origin that may use passkeys of the relying party `id` (WebAuthn Level 3, section
    /// 5.11.1). Empty where no app here has that identifier; several apps may share one.
    #[must_use]
    pub fn origins_of(&self, id: &str) -> Vec<String> {
        let served = self.current();
        let mut origins: Vec<String> = Vec::new();
        for app in served.0.values() {
            if app.policy.relying_party.id != id {
                continue;
            }
            for origin in &app.policy.origins {
                if !origins.contains(origin) {
                    origins.push(origin.clone());
                }
            }
        }
        origins
    }

    /// Whether any app here lists this origin.
    #[must_use]
    pub fn any_lists(&self, origin: &str) -> bool {
        self.current().0.values().any(|app| app.lists(origin))
    }

    /// How long each app keeps what. A session that is only renewed leaves no trace in the account,
    /// so an account counts as used for as long as one could have been renewed.
    #[must_use]
    pub fn retention(&self) -> Vec<(AppId, Retention)> {
        let served = self.current();
        let apps = served.0.iter();
        apps.map(|(id, app)| {
            let mut retention = app.policy.retention.clone();
            let sessions = &app.policy.sessions;
            let longest = sessions.absolute.max(sessions.read_only_absolute);
            retention.inactive = retention.inactive.map(|span| span + longest);
            (id.clone(), retention)
        })
        .collect()
    }

    /// What each app's policy says of server slots.
    #[must_use]
    pub fn server_slots(&self) -> Vec<(AppId, ServerSlot)> {
        let served = self.current();
        let apps = served.0.iter();
        apps.map(|(id, app)| (id.clone(), app.policy.secrets.server_slot))
            .collect()
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.current().0.len()
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
