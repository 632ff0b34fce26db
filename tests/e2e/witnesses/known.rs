//! What witnesses answer to who asks how much of the log they know.

use std::time::Duration;

use custodyd::config;
use custodyd::witness::{VerifierKey, newest_known};
use custodyd_hsm::software::SoftCustody;
use custodyd_hsm::{
    Backend, Custody, KeyReport, Pool, PoolOptions, ProvisionReport, PublicKey, RealmName,
    TokenDescription, checkpoint,
};
use custodyd_tests::Witness;
use custodyd_tests::witness::{Manner, cosigned};
use serde_json::Value;

use super::ORIGIN;

/// A token in memory.
struct Soft;

impl Backend for Soft {
    fn open(&self) -> custodyd_hsm::Result<Box<dyn Custody>> {
        Ok(Box::new(SoftCustody::new()))
    }
    fn describe(&self) -> TokenDescription {
        TokenDescription::default()
    }
    fn inspect(&self) -> custodyd_hsm::Result<Vec<KeyReport>> {
        Ok(Vec::new())
    }
    fn provision(&self, _: bool) -> custodyd_hsm::Result<ProvisionReport> {
        Ok(ProvisionReport::default())
    }
}

/// A JWK set as the realm publishes it.
fn jwks_of(keys: &[PublicKey]) -> Value {
    let jwk = |key: &PublicKey| {
        let mut jwk = key.jwk();
        jwk["use"] = "custodyd-checkpoint".into();
        jwk["note_key_id"] = hex::encode(checkpoint::key_id(key)).into();
        jwk
    };
    serde_json::json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()})
}

/// What the restore ceremony asks, before it takes an older database for the newest.
#[tokio::test]
async fn witnesses_are_asked_what_they_know_and_what_they_show_is_verified() {
    // One session: each has keys of its own here.
    let options = PoolOptions {
        threads: 1,
        ..PoolOptions::default()
    };
    let pool = Pool::start(std::sync::Arc::new(Soft), options).unwrap();
    let keys = pool.call("keys", |custody| checkpoint::keys(custody)).await;
    let keys = keys.unwrap();
    let names = ["a.example/w", "b.example/w", "c.example/w", "d.example/w"].map(Witness::start);
    let [a, b, c, d] = names;
    let [a, b, c, mut d] = [a.await, b.await, c.await, d.await];
    let all = [&a, &b, &c, &d];
    let section = Witness::section(1, "", &all);
    let ca_file = section
        .lines()
        .find_map(|line| line.strip_prefix("ca_file = "));
    let known = all.iter().enumerate().map(|(at, one)| config::Witness {
        name: format!("w{at}"),
        url: one.url(),
        key: VerifierKey::parse(&one.vkey()).unwrap(),
    });
    let config = config::Witnesses {
        quorum: 1,
        period: Duration::from_secs(60),
        alert_after: Duration::from_secs(60),
        ca_file: Some(ca_file.unwrap().trim_matches('"').into()),
        courier: None,
        known: known.collect(),
    };
    // The first has cosigned two entries, the second none, the third does not know the log, the
    // fourth is away.
    for one in [&a, &b] {
        one.follow(ORIGIN, &jwks_of(&keys));
    }
    let root = [7; 32];
    let text = format!("{ORIGIN}\n2\n{}\n", base64(&root));
    let signed = text.clone();
    let sign = move |custody: &mut dyn Custody| checkpoint::sign(custody, signed.as_bytes());
    let (signature, key) = pool.call("sign", sign).await.unwrap();
    let line = base64(&checkpoint::note_signature(&key, &signature));
    let note = format!("{text}\n\u{2014} {ORIGIN} {line}\n");
    assert_eq!(a.add_checkpoint(&format!("old 0\n\n{note}")).0, 200);
    d.go_away().await;
    let realm = RealmName::parse("test.example").unwrap();
    let ask = async |epoch| {
        newest_known(&config, &pool, &keys, &realm, epoch)
            .await
            .unwrap()
    };
    let told = ask(1).await;
    assert_eq!(told[0].size, Ok(2));
    let shown = told[0].shown.as_ref().unwrap();
    assert_eq!((shown.size, shown.root), (2, root));
    assert!(cosigned(&shown.note, &a.vkey()).is_some());
    // It follows the log, so it has cosigned that there was nothing yet.
    let nothing = told[1].shown.as_ref().unwrap();
    assert_eq!((&told[1].size, nothing.size), (&Ok(0), 0));
    assert!(told[2].size.as_ref().unwrap_err().contains("404"));
    assert!(told[3].size.is_err());
    let most: Vec<_> = told.iter().map(custodyd::witness::Known::most).collect();
    assert_eq!(most, [Some(2), Some(0), None, None]);
    // Asking has changed nothing.
    assert_eq!(a.size(ORIGIN), 2);
    // A size is a claim. Another epoch is another log. Forged lines say nothing.
    a.set(Manner::Claiming(9));
    b.set(Manner::Forging);
    let told = ask(1).await;
    assert_eq!((&told[0].size, told[0].most()), (&Ok(9), Some(9)));
    assert!(told[1].size.is_err() && told[1].shown.is_none());
    a.set(Manner::Honest);
    assert!(ask(2).await[0].size.as_ref().unwrap_err().contains("404"));
    // Control of what is shown: with no key of the realm's it is not believed.
    let told = newest_known(&config, &pool, &[], &realm, 1).await.unwrap();
    assert_eq!((&told[0].size, &told[0].shown), (&Ok(2), &None));
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
