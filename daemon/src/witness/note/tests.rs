//! Notes, verifier keys and cosignatures: the specifications' own examples, and anything else.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use custodyd_hsm::software::SoftCustody;
use proptest::prelude::*;

use super::*;

/// The example of c2sp.org/tlog-cosignature. Its keys are not published.
const EXAMPLE: &str = "example.com/behind-the-sofa\n\
    20852163\n\
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
    \n\
    \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
    \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

/// The signed message that the same page shows for it.
const MESSAGE: &str = "cosignature/v1\n\
    time 1679315147\n\
    example.com/behind-the-sofa\n\
    20852163\n\
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

pub(in crate::witness) const TEXT: &str =
    "realm.example/custodyd/log/1\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

pub(in crate::witness) fn witness(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(pair: &Ed25519KeyPair) -> [u8; 32] {
    pair.public_key().as_ref().try_into().unwrap()
}

/// A verifier key, put together as the page says and not by the code under test.
fn vkey(name: &str, kind: u8, key: &[u8]) -> String {
    let id = sha256(&[name.as_bytes(), &[0x0a, kind], key]);
    let material = STANDARD.encode([&[kind][..], key].concat());
    format!("{name}+{}+{material}", hex::encode(&id[..4]))
}

pub(in crate::witness) fn key(name: &str, pair: &Ed25519KeyPair) -> VerifierKey {
    VerifierKey::parse(&vkey(name, 4, &public(pair))).unwrap()
}

pub(in crate::witness) fn cosign(
    name: &str,
    pair: &Ed25519KeyPair,
    time: u64,
    text: &str,
) -> String {
    let id = sha256(&[name.as_bytes(), &[0x0a, 4], &public(pair)]);
    let message = format!("cosignature/v1\ntime {time}\n{text}");
    let signature = pair.sign(message.as_bytes());
    let bytes = [&id[..4], &time.to_be_bytes(), signature.as_ref()].concat();
    format!("\u{2014} {name} {}\n", STANDARD.encode(bytes))
}

fn believed(key: &VerifierKey, text: &str, lines: &str) -> Result<Option<u64>, Forged> {
    let lines = signatures(lines).unwrap();
    let found = key.cosignature(text, &lines)?;
    Ok(found.map(|one| one.time))
}

#[test]
fn the_example_of_the_specification_is_read() {
    let note = Note::parse(EXAMPLE).unwrap();
    let statement = Statement::parse(note.text).unwrap();
    assert_eq!(statement.origin, "example.com/behind-the-sofa");
    assert_eq!(statement.size, 20_852_163);
    let names: Vec<&str> = note.signatures.iter().map(|one| one.name).collect();
    assert_eq!(
        names,
        ["example.com/behind-the-sofa", "witness.example.com/w1"]
    );
    let cosignature = &note.signatures[1];
    assert_eq!(cosignature.id, [0x8d, 0x66, 0xcf, 0x3f]);
    assert_eq!(cosignature.signature.len(), 8 + 64);
    let time = u64::from_be_bytes(cosignature.signature[..8].try_into().unwrap());
    assert_eq!(message(time, note.text), MESSAGE);
}

/// The example of c2sp.org/signed-note: its text has an empty line of its own.
#[test]
fn a_text_may_have_empty_lines() {
    let note = "Ognuno sta solo sul cuor della terra\n\
        trafitto da un raggio di sole:\n\
        \n\
        ed è subito sera.\n\
        \n\
        \u{2014} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let note = Note::parse(note).unwrap();
    assert!(note.text.ends_with("ed è subito sera.\n"));
    assert_eq!(note.signatures.len(), 1);
}

#[test]
fn what_is_no_note_is_nothing() {
    let good = EXAMPLE;
    let changed = |from: &str, to: &str| good.replacen(from, to, 1);
    for bad in [
        String::new(),
        "\n\n\u{2014} a AAAAAAA=\n".into(),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        changed("\n\n", "\n"),
        changed("\u{2014} e", "- e"),
        changed("\u{2014} e", "\u{2014}e"),
        changed("\u{2014} w", "\u{2014} \u{a0}w"),
        changed("w1 ", "w1+x "),
        changed("\u{2014} witness.example.com/w1", "\u{2014} "),
        changed("nA==", "nA="),
        changed("nA==", "nA"),
        changed("nA==", "nB=="),
        changed("Az3g", "A"),
        changed("sofa\n", "sofa\r\n"),
        changed("sofa\n", "sofa\t\n"),
        good.replace('\n', "\r\n"),
        format!("{good}{}", "\u{2014} a AAAAAAA=\n".repeat(100)),
    ] {
        assert!(Note::parse(&bad).is_none(), "{bad:?}");
    }
}

#[test]
fn a_statement_has_three_lines_and_one_spelling() {
    assert!(Statement::parse(TEXT).is_some());
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    for bad in [
        format!("a\n07\n{root}\n"),
        format!("a\n+7\n{root}\n"),
        format!("a\n\n{root}\n"),
        format!("\n7\n{root}\n"),
        format!("a\n7\n{root}"),
        format!("a\n7\n{root}\nmore\n"),
        format!("a\n7\n{root}\n\n"),
        format!("a\n7\n{}\n", &root[4..]),
        format!("a\n18446744073709551616\n{root}\n"),
        "a\n7\n".into(),
        String::new(),
    ] {
        assert_eq!(Statement::parse(&bad), None, "{bad:?}");
    }
}

#[test]
fn a_verifier_key_is_read_or_told_what_is_wrong() {
    let public = public(&witness(1));
    let good = vkey("witness.example/w1", 4, &public);
    assert_eq!(VerifierKey::parse(&good).unwrap().to_text(), good);
    // The key of signed-note's own example is one for notes.
    let of_notes = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    assert!(
        VerifierKey::parse(of_notes)
            .unwrap_err()
            .contains("type 0x01")
    );
    let quantum = vkey("w", 6, &[1; 1312]);
    assert!(VerifierKey::parse(&quantum).unwrap_err().contains("ML-DSA"));
    for bad in [
        String::new(),
        "w".into(),
        "w+00000000".into(),
        good.replacen("w1", "w2", 1),
        good.to_uppercase(),
        format!("{good} "),
        format!(" {good}"),
        good[..good.len() - 4].to_owned(),
        vkey("two words", 4, &public),
        vkey("", 4, &public),
        vkey("w", 4, &public[1..]),
        vkey("w", 5, &public),
        vkey("w", 4, &[]),
    ] {
        assert!(VerifierKey::parse(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_cosignature_is_of_this_key_name_time_and_text_or_none() {
    let pair = witness(1);
    let key = key("w1", &pair);
    let good = cosign("w1", &pair, 1_679_315_147, TEXT);
    assert_eq!(believed(&key, TEXT, &good), Ok(Some(1_679_315_147)));
    // Others' lines are not looked at: an unknown key by the same name, the key by another name.
    let others = cosign("w1", &witness(2), 5, TEXT) + &cosign("w2", &pair, 5, TEXT);
    assert_eq!(believed(&key, TEXT, &others), Ok(None));
    let mixed = others + &good;
    assert_eq!(believed(&key, TEXT, &mixed), Ok(Some(1_679_315_147)));
    // Of several the latest.
    let two = cosign("w1", &pair, 9, TEXT) + &cosign("w1", &pair, 7, TEXT);
    assert_eq!(believed(&key, TEXT, &two), Ok(Some(9)));
    // Another size, another time than what was signed, none at all, or one of the far future.
    let other = TEXT.replace("\n7\n", "\n8\n");
    assert_eq!(believed(&key, &other, &good), Err(Forged));
    for time in [0, i64::MAX as u64 + 1, u64::MAX] {
        let line = cosign("w1", &pair, time, TEXT);
        assert_eq!(believed(&key, TEXT, &line), Err(Forged), "{time}");
    }
    let end = cosign("w1", &pair, i64::MAX as u64, TEXT);
    assert_eq!(believed(&key, TEXT, &end), Ok(Some(i64::MAX as u64)));
    // One that is wrong spoils the answer.
    let id = hex::decode(&key.to_text()[3..11]).unwrap();
    for length in [1, 8, 71, 72, 73] {
        let bytes = [&id[..], &vec![1; length]].concat();
        let line = format!("\u{2014} w1 {}\n", STANDARD.encode(bytes));
        assert_eq!(believed(&key, TEXT, &line), Err(Forged), "{length}");
        let spoilt = good.clone() + &line;
        assert_eq!(believed(&key, TEXT, &spoilt), Err(Forged), "{length}");
    }
}

pub(in crate::witness) const LOG: &str = "realm.example/custodyd/log/1";

/// A checkpoint of a log that has just been made, with its key.
pub(in crate::witness) fn signed_by_a_log() -> (String, PublicKey) {
    let (signature, log) = checkpoint::sign(&mut SoftCustody::new(), TEXT.as_bytes()).unwrap();
    let line = STANDARD.encode(checkpoint::note_signature(&log, &signature));
    (format!("{TEXT}\n\u{2014} {LOG} {line}\n"), log)
}

#[test]
fn the_logs_own_signature_is_of_its_keys_and_name() {
    let ((note, log), origin) = (signed_by_a_log(), LOG);
    let signed = |note: &str, origin: &str, keys: &[PublicKey]| {
        Note::parse(note).unwrap().is_signed_by(origin, keys)
    };
    assert!(signed(&note, origin, &[log]));
    assert!(!signed(&note, origin, &[]));
    assert!(!signed(&note, "realm.example/custodyd/log/2", &[log]));
    assert!(!signed(&note.replace("\n7\n", "\n8\n"), origin, &[log]));
    let other = checkpoint::keys(&mut SoftCustody::new()).unwrap();
    assert!(!signed(&note, origin, &other));
}

proptest! {
    #[test]
    fn nothing_is_a_panic_and_what_parses_is_what_was_there(
        note in "([a—+ =\n0-9A-Z]|\n\n|— a AAAAAAA=\n){0,40}",
    ) {
        if let Some(parsed) = Note::parse(&note) {
            let mut again = format!("{}\n", parsed.text);
            for one in &parsed.signatures {
                again.push_str(one.line);
                again.push('\n');
            }
            prop_assert_eq!(&again, &note);
            let _ = Statement::parse(parsed.text);
        }
    }

    #[test]
    fn arbitrary_text_is_no_panic(text in any::<String>()) {
        let _ = Note::parse(&text);
        let _ = signatures(&text);
        let _ = Statement::parse(&text);
        if let Ok(key) = VerifierKey::parse(&text) {
            prop_assert_eq!(key.to_text(), text);
        }
    }

    #[test]
    fn no_changed_byte_is_believed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let pair = witness(1);
        let key = key("w1", &pair);
        let line = cosign("w1", &pair, 1_679_315_147, TEXT);
        let (head, encoded) = line.trim_end().rsplit_once(' ').unwrap();
        let mut bytes = STANDARD.decode(encoded).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = format!("{head} {}\n", STANDARD.encode(bytes));
        // In the key id it is somebody else's, anywhere else it is forged.
        let expected = if at < 4 { Ok(None) } else { Err(Forged) };
        prop_assert_eq!(believed(&key, TEXT, &changed), expected);
    }
}
