//! What one client does with its account, one thing after another, as the dice say.

use std::sync::Arc;
use std::time::Duration;

use super::asking::Owned;
use super::dice::Dice;
use super::history::NOBODYS;
use super::notebook::Notebook;
use crate::Device;

/// Attempts at a PIN: enough for a while of wrong ones, few enough to be spent now and then.
pub const ATTEMPTS: u64 = 24;
/// As long as a request may take, and a little more.
const PATIENCE: Duration = Duration::from_secs(40);
/// Erased accounts that are tried again.
const GRAVES: usize = 4;

/// Where the first requests go, whom to trust, and how long a client rests between two things.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) url: String,
    pub(super) ca: String,
    pub(super) rest: Duration,
}

pub(super) struct Client {
    notebook: Arc<Notebook>,
    place: Place,
    dice: Dice,
    http: reqwest::Client,
    erased: Vec<Owned>,
}

impl Client {
    pub(super) fn new(notebook: Arc<Notebook>, place: Place, dice: Dice) -> Self {
        let authority = reqwest::Certificate::from_pem(place.ca.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([authority])
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            notebook,
            place,
            dice,
            http,
            erased: Vec::new(),
        }
    }

    /// Until the campaign stops.
    pub(super) async fn live(mut self) {
        while self.one_account().await.is_some() {}
        for owned in self.erased {
            self.notebook.over(owned.checker.history().to_vec());
        }
    }

    async fn one_account(&mut self) -> Option<()> {
        let mut device = Device::new(&self.place.url, &self.place.ca, "notes");
        device.http = self.http.clone();
        let mut owned = Owned::enrolled(&self.notebook, device, ATTEMPTS, self.dice.fork()).await?;
        let lived = self.life_of(&mut owned).await;
        match owned.broken || lived.is_none() {
            true => self.notebook.over(owned.checker.history().to_vec()),
            false => self.bury(owned),
        }
        lived
    }

    fn bury(&mut self, owned: Owned) {
        self.erased.push(owned);
        if self.erased.len() > GRAVES {
            let oldest = self.erased.remove(0);
            self.notebook.over(oldest.checker.history().to_vec());
        }
    }

    /// Until the account is erased, or an answer could not be true.
    async fn life_of(&mut self, owned: &mut Owned) -> Option<()> {
        owned.add_passkey().await?;
        owned.add_passkey().await?;
        owned.set_pin().await?;
        owned.put(0).await?;
        while !owned.broken && owned.checker.may_exist() {
            tokio::time::sleep(self.place.rest).await;
            if self.notebook.has_stopped() {
                return None;
            }
            self.step(owned).await?;
        }
        Some(())
    }

    async fn step(&mut self, owned: &mut Owned) -> Option<()> {
        // Whatever came of the beginning, there is a way back in and something to lose.
        if owned.checker.pins().all(|pin| pin == NOBODYS) {
            self.session(owned).await?;
            return owned.set_pin().await;
        }
        match self.dice.below(100) {
            0..30 => self.wrong(owned).await,
            30..48 => self.right(owned).await.map(drop),
            48..60 => self.passkey(owned).await,
            60..78 => self.put(owned).await,
            78..83 => {
                self.session(owned).await?;
                owned.get().await;
                Some(())
            }
            83..86 => owned.end_an_old_login(self.dice.roll()).await,
            86..88 => owned.list_with_an_old_session(self.dice.roll()).await,
            88..91 => self.new_pin(owned).await,
            91..94 => self.revoke(owned).await,
            94..96 => self.exhaust(owned).await,
            96..97 => self.erase(owned).await,
            _ => self.dig_up().await,
        }
    }

    /// Some at once, but not all that are left: nobody's, and such as were right once.
    async fn wrong(&mut self, owned: &mut Owned) -> Option<()> {
        let count = 1 + self.dice.below(3);
        if owned.checker.attempts_left() <= count + 4 {
            return self.right(owned).await.map(drop);
        }
        let retired = owned.retired_pins();
        let pins: Vec<_> = (0..count)
            .map(|_| match !retired.is_empty() && self.dice.below(3) == 0 {
                true => *self.dice.one_of(&retired),
                false => NOBODYS,
            })
            .collect();
        // Now and then the way that it is not checked.
        let likely = self.dice.below(8) != 0;
        let by_opaque = owned.has_its_pin_by_opaque() == likely;
        owned.guess_wrong(&pins, by_opaque).await
    }

    async fn right(&mut self, owned: &mut Owned) -> Option<bool> {
        owned.sign_in_by_pin(self.dice.roll()).await
    }

    /// One that is there, or one time in five one that was revoked.
    async fn passkey(&mut self, owned: &mut Owned) -> Option<()> {
        let wanted = self.dice.below(5) != 0;
        let numbers = owned.passkeys.iter().map(|(number, _)| *number);
        let places: Vec<usize> = numbers
            .enumerate()
            .filter(|(_, number)| owned.checker.has_passkey(*number) == wanted)
            .map(|(place, _)| place)
            .collect();
        if !places.is_empty() {
            let place = *self.dice.one_of(&places);
            owned.sign_in_by_passkey(place).await?;
        }
        Some(())
    }

    /// A session that is as good as any: by a passkey where there is one.
    async fn best(&mut self, owned: &mut Owned) -> Option<bool> {
        let there = (0..owned.passkeys.len()).find(|&at| {
            let (number, _) = owned.passkeys[at];
            owned.checker.has_passkey(number)
        });
        match there {
            Some(place) => owned.sign_in_by_passkey(place).await,
            None => self.right(owned).await,
        }
    }

    async fn session(&mut self, owned: &mut Owned) -> Option<()> {
        if !owned.has_a_session() {
            self.best(owned).await?;
        }
        Some(())
    }

    async fn put(&mut self, owned: &mut Owned) -> Option<()> {
        self.session(owned).await?;
        match owned.has_a_session() {
            true => owned.put(self.dice.roll()).await,
            false => Some(()),
        }
    }

    async fn new_pin(&mut self, owned: &mut Owned) -> Option<()> {
        match self.right(owned).await? {
            true => owned.set_pin().await,
            false => Some(()),
        }
    }

    /// Takes the newest passkey but one away, and adds another.
    async fn revoke(&mut self, owned: &mut Owned) -> Option<()> {
        if !self.best(owned).await? {
            return Some(());
        }
        let Some(mut listed) = owned.list().await else {
            return Some(());
        };
        listed.sort();
        if let [.., (number, id)] = &listed[..]
            && listed.len() > 1
        {
            owned.remove_passkey(*number, id).await;
            self.best(owned).await?;
        }
        owned.add_passkey().await
    }

    /// Wrong ones to the end, then the right one, which must not be looked at, and the way out.
    async fn exhaust(&mut self, owned: &mut Owned) -> Option<()> {
        if !owned
            .passkeys
            .iter()
            .any(|(number, _)| owned.checker.has_passkey(*number))
        {
            return Some(());
        }
        for _ in 0..ATTEMPTS {
            if owned.checker.attempts_left() == 0 || owned.broken {
                break;
            }
            let by_opaque = owned.has_its_pin_by_opaque();
            owned.guess_wrong(&[NOBODYS], by_opaque).await?;
        }
        self.right(owned).await?;
        self.best(owned).await.map(drop)
    }

    async fn erase(&mut self, owned: &mut Owned) -> Option<()> {
        if self.best(owned).await? {
            owned.erase().await;
        }
        Some(())
    }

    /// What was erased stays so.
    async fn dig_up(&mut self) -> Option<()> {
        if self.erased.is_empty() {
            return Some(());
        }
        let at = usize::try_from(self.dice.below(self.erased.len() as u64)).unwrap();
        let chance = self.dice.roll();
        let owned = &mut self.erased[at];
        match chance % 4 {
            0 if !owned.passkeys.is_empty() => owned.sign_in_by_passkey(0).await.map(drop)?,
            1 => owned.list_with_an_old_session(chance / 4).await?,
            2 => owned.end_an_old_login(chance / 4).await?,
            _ => owned.sign_in_by_pin(chance).await.map(drop)?,
        }
        if owned.broken {
            let owned = self.erased.remove(at);
            self.notebook.over(owned.checker.history().to_vec());
        }
        Some(())
    }
}
