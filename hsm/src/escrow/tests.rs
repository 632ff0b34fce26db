//! Ceremonies with software keys, and what may be wrong with them.

use proptest::prelude::*;

use super::*;

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
            needed,
            custodians,
            made: 7,
        };
        let text = said(create(&plan, &scene.keys));
        assert!(text.contains(what), "{text}");
    }
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
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let file = age::encrypt(&identity.recipient().0, text.as_bytes()).unwrap();
        prop_assert!(Share::decrypt(&file, &identity).is_err());
    }
}
