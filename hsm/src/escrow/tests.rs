//! Ceremonies with software keys, and what may be wrong with them.

use proptest::prelude::*;

use super::*;
use crate::id::{KeyId, KeyPurpose};

struct Scene {
    realm: RealmName,
    identities: Vec<Identity>,
    keys: RootKeys,
    escrow: Escrow,
}

fn realm(name: &str) -> RealmName {
    RealmName::parse(name).unwrap()
}

fn custodians(identities: &[Identity]) -> Vec<(String, Recipient)> {
    let named = identities.iter().enumerate();
    named
        .map(|(at, identity)| (format!("custodian-{at}"), identity.recipient()))
        .collect()
}

fn scene() -> Scene {
    let identities: Vec<Identity> = (0..3).map(|_| Identity::generate()).collect();
    let keys = RootKeys::make(&Secret::init(|_| ())).unwrap();
    let realm = realm("realm.example");
    let plan = Plan {
        realm: &realm,
        after: None,
        needed: 2,
        custodians: &custodians(&identities),
        made: 7,
    };
    let escrow = create(&plan, &keys).unwrap();
    Scene {
        realm: realm.clone(),
        identities,
        keys,
        escrow,
    }
}

impl Scene {
    fn share(&self, at: usize) -> Share {
        Share::decrypt(self.escrow.files[at].as_bytes(), &self.identities[at]).unwrap()
    }

    fn open(&self, chosen: &[usize]) -> Result<RootKeys, EscrowError> {
        open(
            &self.escrow.manifest,
            chosen.iter().map(|at| self.share(*at)).collect(),
        )
    }
}

fn said<T>(result: Result<T, EscrowError>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn any_two_of_three_open_it_and_one_does_not() {
    let scene = scene();
    scene.escrow.manifest.is_of(&scene.realm).unwrap();
    for pair in [[0, 1], [1, 2], [2, 0]] {
        let opened = scene.open(&pair).unwrap();
        for (found, made) in opened.iter().zip(scene.keys.iter()) {
            assert_eq!((found.id, found.expose()), (made.id, made.expose()));
        }
    }
    assert!(scene.open(&[0, 1, 2]).is_ok());
    let few = said(scene.open(&[1]));
    assert!(
        few.contains("1 of 2 shares") && few.contains("custodian-0, custodian-2"),
        "{few}"
    );
    assert!(said(scene.open(&[])).contains("0 of 2"));
    assert!(said(scene.open(&[1, 1])).contains("custodian-1 was given twice"));
}

#[test]
fn a_share_goes_to_another_recipient_and_opens_there_alone() {
    let scene = scene();
    let host = Identity::generate();
    let file = scene.share(0).encrypt(&host.recipient()).unwrap();
    let share = Share::decrypt(file.as_bytes(), &host).unwrap();
    assert_eq!(
        scene.escrow.manifest.owner(&share).unwrap().name,
        "custodian-0"
    );
    assert!(open(&scene.escrow.manifest, vec![share, scene.share(1)]).is_ok());
    let shut = Share::decrypt(file.as_bytes(), &scene.identities[0]);
    assert!(said(shut).contains("opens with none"));
}

#[test]
fn shares_of_two_ceremonies_are_refused() {
    let (one, other) = (scene(), scene());
    let mixed = open(&one.escrow.manifest, vec![one.share(0), other.share(1)]);
    let text = said(mixed);
    assert!(text.contains("two ceremonies"), "{text}");
    assert!(text.contains(&other.escrow.manifest.ceremony_name()));
}

#[test]
fn another_realm_is_refused() {
    let text = said(scene().escrow.manifest.is_of(&realm("other.example")));
    assert!(text.contains("realm.example") && text.contains("other.example"));
}

#[test]
fn an_edited_manifest_is_refused_wherever_it_was_edited() {
    let scene = scene();
    let text = scene.escrow.manifest.encode().unwrap();
    let edits = [
        ("\"made\": 7", "\"made\": 8"),
        ("\"needed\": 2", "\"needed\": 3"),
        ("realm.example", "other.example"),
        ("custodian-1", "custodian-9"),
        ("custodyd-wrap-v1", "custodyd-wrap-v2"),
    ];
    for (from, to) in edits {
        let edited = Manifest::parse(&text.replacen(from, to, 1)).unwrap();
        let shares = (0..3).map(|at| scene.share(at)).collect();
        assert!(matches!(open(&edited, shares), Err(EscrowError::Edited)));
    }
    // Whoever could make shares name the edited manifest still lacks the key of its MAC.
    let edited = Manifest::parse(&text.replacen("\"made\": 7", "\"made\": 8", 1)).unwrap();
    let hash = edited.hash().unwrap();
    let renamed = (0..2).map(|at| {
        let mut share = scene.share(at);
        share.manifest = hash;
        share
    });
    assert!(matches!(
        open(&edited, renamed.collect()),
        Err(EscrowError::Edited)
    ));
}

#[test]
fn a_share_that_was_altered_is_nobodys() {
    let scene = scene();
    let good = scene.share(0);
    let value = SecretBytes::init(split::VALUE, |place| {
        place.copy_from_slice(good.value().expose());
        place[9] ^= 1;
    });
    let bad = Share::new(good.ceremony, good.manifest, value);
    let refused = open(&scene.escrow.manifest, vec![bad, scene.share(1)]);
    assert!(matches!(refused, Err(EscrowError::OtherShare)));
}

#[test]
fn plans_that_protect_nobody_are_refused() {
    let scene = scene();
    let all = custodians(&scene.identities);
    let mut renamed = all.clone();
    renamed[1].0 = "custodian-0".into();
    let mut odd = all.clone();
    odd[0].0 = "../x".into();
    let mut same = all.clone();
    same[2].1 = same[0].1.clone();
    for (needed, custodians, what) in [
        (1, all.as_slice(), "expected 2 to 3"),
        (4, &all, "expected 2 to 3"),
        (2, &all[..1], "1 custodians"),
        (2, &renamed, "named twice"),
        (2, &odd, "expected 1 to 32"),
        (2, &same, "two shares"),
    ] {
        let plan = Plan {
            realm: &scene.realm,
            after: None,
            needed,
            custodians,
            made: 7,
        };
        let text = said(create(&plan, &scene.keys));
        assert!(text.contains(what), "{text}");
    }
}

const WRAP: KeyId = KeyId {
    purpose: KeyPurpose::Wrap,
    version: 2,
};

/// A ceremony of this realm that adds a version, with custodians of its own.
fn further(after: &Manifests, key: KeyId) -> (Manifests, Vec<Identity>, Escrow) {
    let identities: Vec<Identity> = (0..2).map(|_| Identity::generate()).collect();
    let keys = RootKeys::make_further(&[key], &Secret::init(|_| ())).unwrap();
    let plan = Plan {
        realm: &after.first().realm,
        after: Some(after),
        needed: 2,
        custodians: &custodians(&identities),
        made: 8,
    };
    let escrow = create(&plan, &keys).unwrap();
    let manifests = after.clone().with(escrow.manifest.clone()).unwrap();
    (manifests, identities, escrow)
}

fn shares_of(escrow: &Escrow, identities: &[Identity]) -> Vec<Share> {
    let files = escrow.files.iter().zip(identities);
    files
        .map(|(file, identity)| Share::decrypt(file.as_bytes(), identity).unwrap())
        .collect()
}

#[test]
fn a_version_is_added_without_the_shares_of_before() {
    let scene = scene();
    let first = Manifests::begin(scene.escrow.manifest.clone()).unwrap();
    assert_eq!(
        first.encode().unwrap(),
        scene.escrow.manifest.encode().unwrap()
    );
    let (both, identities, added) = further(&first, WRAP);
    let again = Manifests::parse(&both.encode().unwrap()).unwrap();
    assert_eq!(again, both);
    assert!(both.begin_with(&first) && !first.begin_with(&both));
    assert_ne!(both.fingerprint().unwrap(), first.fingerprint().unwrap());
    assert_eq!(both.newest_of(KeyPurpose::Wrap).unwrap().key, WRAP);
    assert_eq!(both.newest_of(KeyPurpose::Mac).unwrap().key.version, 1);
    // Its shares open it alone, and everything takes those of both.
    let new = || shares_of(&added, &identities);
    let old = || vec![scene.share(0), scene.share(2)];
    let all: Vec<KeyId> = first.keys().map(|check| check.key).collect();
    let opened = both.open(new(), &all, &[]).unwrap();
    assert_eq!(opened.iter().map(|key| key.id).collect::<Vec<_>>(), [WRAP]);
    let text = said(both.open(new(), &[], &[]));
    assert!(
        text.contains("0 of 2 shares") && text.contains("custodyd-mac-v1"),
        "{text}"
    );
    let text = said(both.open(old(), &[], &[]));
    assert!(
        text.contains("0 of 2 shares") && text.contains("(custodyd-wrap-v2)"),
        "{text}"
    );
    let everything = || old().into_iter().chain(new()).collect::<Vec<_>>();
    let opened = both.open(everything(), &[], &[]).unwrap();
    assert_eq!(opened.checks().len(), KeyPurpose::REQUIRED.len() + 1);
    // What was destroyed is left out, and its ceremony is not needed where it has nothing else.
    let opened = both.open(old(), &[], &[WRAP]).unwrap();
    assert!(opened.is_whole() && opened.iter().all(|key| key.id != WRAP));
    let one = KeyId::new(KeyPurpose::Wrap, 1);
    let opened = both.open(everything(), &[], &[one]).unwrap();
    assert!(opened.is_whole() && opened.iter().all(|key| key.id != one));
}

#[test]
fn whose_share_it_is_says_the_whole_file_and_an_older_one_what_it_can() {
    let scene = scene();
    let first = Manifests::begin(scene.escrow.manifest.clone()).unwrap();
    let (both, identities, added) = further(&first, WRAP);
    let of = |manifests: &Manifests, share: &Share| {
        let (manifest, owner) = manifests.owner(share)?;
        Ok::<_, EscrowError>((manifest.ceremony_name(), owner.name.clone()))
    };
    let (old, new) = (scene.share(1), shares_of(&added, &identities).remove(0));
    let (_, owner) = of(&both, &old).unwrap();
    assert_eq!(owner, "custodian-1");
    assert_eq!(of(&first, &old).unwrap(), of(&both, &old).unwrap());
    assert_eq!(of(&both, &new).unwrap().1, "custodian-0");
    // An older copy does not know of the ceremony, and says so.
    assert!(said(of(&first, &new)).contains("two ceremonies"));
    let (other, _, _) = further(&first, WRAP);
    assert!(said(of(&other, &new)).contains("two ceremonies"));
}

#[test]
fn ceremonies_that_do_not_follow_one_another_are_refused() {
    let scene = scene();
    let first = Manifests::begin(scene.escrow.manifest.clone()).unwrap();
    let (both, _, _) = further(&first, WRAP);
    let bind = KeyId::new(KeyPurpose::Bind, 2);
    let (three, _, third) = further(&both, bind);
    let (beside, _, _) = further(&first, bind);
    let text = |manifests: &Manifests| manifests.encode().unwrap();
    let head = text(&first);
    let tail = |manifests: &Manifests| text(manifests)[head.len()..].to_owned();
    let refused = |text: &str| said(Manifests::parse(text));
    // One is left out, is of another history, stands twice, or alone.
    assert!(refused(&format!("{head}{}", third.manifest.encode().unwrap())).contains("not follow"));
    assert!(refused(&format!("{}{}", text(&both), tail(&beside))).contains("not follow"));
    assert!(refused(&format!("{}{}", text(&both), tail(&both))).contains("not follow"));
    assert!(refused(&tail(&both)).contains("left out"));
    assert!(refused("").contains("empty"));
    assert!(!refused(&format!("{} ", text(&three))).is_empty());
    assert!(!refused(&format!("{head}\n{}", tail(&both))).is_empty());
    // The control.
    assert_eq!(Manifests::parse(&text(&three)).unwrap(), three);
    // An edited one breaks the chain behind it, or its own shares.
    let edited = text(&three).replacen("\"made\": 8", "\"made\": 9", 1);
    assert!(refused(&edited).contains("not follow"));
    // Versions that are no newer ones.
    for old in [WRAP, KeyId::new(KeyPurpose::Wrap, 1)] {
        let keys = RootKeys::make_further(&[old], &Secret::init(|_| ())).unwrap();
        let plan = Plan {
            realm: &scene.realm,
            after: Some(&both),
            needed: 2,
            custodians: &custodians(&scene.identities),
            made: 9,
        };
        assert!(said(create(&plan, &keys)).contains("not newer"), "{old}");
    }
}

#[test]
fn what_is_unfinished_opens_in_a_token_of_the_realm_and_for_its_manifest() {
    let scene = scene();
    let first = Manifests::begin(scene.escrow.manifest).unwrap();
    let identities: Vec<Identity> = (0..2).map(|_| Identity::generate()).collect();
    let made = |version| {
        let key = KeyId::new(KeyPurpose::Wrap, version);
        let keys = RootKeys::make_further(&[key], &Secret::init(|_| ())).unwrap();
        let plan = Plan {
            realm: &scene.realm,
            after: Some(&first),
            needed: 2,
            custodians: &custodians(&identities),
            made: 8,
        };
        (create(&plan, &keys).unwrap().manifest, keys)
    };
    let mut token = crate::software::SoftCustody::new();
    let (manifest, keys) = made(2);
    let kept = keep(&mut token, &manifest, &keys).unwrap();
    assert!(kept.len() < MAX_UNFINISHED);
    let again = take_up(&mut token, &manifest, &kept).unwrap();
    assert_eq!(again.checks(), keys.checks());
    let secret = keys.iter().next().unwrap().expose();
    assert!(!kept.windows(32).any(|part| part == secret));
    let (other, _) = made(2);
    assert!(take_up(&mut token, &other, &kept).is_err());
    for at in 0..kept.len() {
        let mut altered = kept.clone();
        altered[at] ^= 1;
        assert!(take_up(&mut token, &manifest, &altered).is_err(), "{at}");
    }
    assert!(take_up(&mut token, &manifest, &[]).is_err());
}

#[test]
fn a_share_that_is_no_part_of_the_secret_shows_before_it_is_given_away() {
    let secret = random::<32>().unwrap();
    let mut values = split::split(secret.expose(), 2, 4).unwrap();
    assert!(every_choice_opens(&values, 2, &secret).unwrap());
    // The first one: the last few alone would not have told.
    values[0] = SecretBytes::init(split::VALUE, |place| {
        place.copy_from_slice(values[0].expose());
        place[9] ^= 1;
    });
    assert!(!every_choice_opens(&values, 2, &secret).unwrap());
}

#[test]
fn an_identity_is_read_as_age_writes_it() {
    let identity = Identity::generate();
    let file = identity.to_file();
    let again = Identity::from_file(file.expose()).unwrap();
    assert_eq!(again.recipient(), identity.recipient());
    let twice = [file.expose(), file.expose()].concat();
    assert!(said(Identity::from_file(&twice)).contains("one identity"));
    for bad in [&b""[..], b"AGE-SECRET-KEY-1X", b"\xff"] {
        let text = said(Identity::from_file(bad));
        assert!(!text.contains("KEY-1X"), "{text}");
    }
    for bad in ["", "age1x", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1"] {
        assert!(Recipient::parse(bad).is_err());
    }
}

#[test]
fn debug_shows_no_secret() {
    let scene = scene();
    let shown = format!("{:?} {:?}", scene.identities[0], scene.share(0));
    assert!(
        !shown.contains("SECRET") && shown.contains("redacted"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let identity = Identity::generate();
        let _ = Share::decrypt(&bytes, &identity);
        let _ = Share::parse(&SecretBytes::from(bytes.clone()));
        let _ = Identity::from_file(&bytes);
        let _ = Manifest::parse(&String::from_utf8_lossy(&bytes));
        let _ = Manifests::parse(&String::from_utf8_lossy(&bytes));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let file = age::encrypt(&identity.recipient().0, text.as_bytes()).unwrap();
        prop_assert!(Share::decrypt(&file, &identity).is_err());
    }
}
