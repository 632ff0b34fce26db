//! The published vectors of RFC 4226 and RFC 6238, the order of steps, and a
//! scanner of another hand on the QR codes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop

use std::collections::BTreeMap;
use std::io::Cursor;

use proptest::prelude::*;

use super::*;

const HOTP: &str = include_str!("../../../vectors/rfc4226_appendix_d.json");
const TOTP: &str = include_str!("../../../vectors/rfc6238_appendix_b.json");

fn record(algorithm: Algorithm, secret: &str, digits: u8) -> TotpRecord {
    TotpRecord {
        secret: SharedSecret::new(secret.as_bytes().to_vec().into()),
        algorithm,
        digits,
        period: 30,
        salt: [7; 16],
        last_step: None,
    }
}

fn published() -> TotpRecord {
    record(Algorithm::Sha1, "12345678901234567890", 6)
}

/// The code of a step, from the library itself.
fn code(record: &TotpRecord, step: u64) -> String {
    let totp = record.totp().unwrap();
    totp.generate(step * record.period).to_string()
}

#[test]
fn rfc_4226_appendix_d() {
    #[derive(Deserialize)]
    struct Vectors {
        secret: String,
        codes: Vec<String>,
    }
    let vectors: Vectors = serde_json::from_str(HOTP).unwrap();
    assert_eq!(vectors.codes.len(), 10);
    let record = record(Algorithm::Sha1, &vectors.secret, 6);
    for (step, code) in (0u64..).zip(&vectors.codes) {
        let at = |step: u64| record.matched_step(code, Timestamp(step * 30), 0).unwrap();
        assert_eq!(at(step), Some(step), "{code}");
        assert_eq!(at(step + 1), None, "{code}");
    }
}

#[test]
fn rfc_6238_appendix_b() {
    #[derive(Deserialize)]
    struct Vectors {
        secrets: BTreeMap<String, String>,
        codes: Vec<Code>,
    }
    #[derive(Deserialize)]
    struct Code {
        time: u64,
        step: u64,
        #[serde(flatten)]
        codes: BTreeMap<String, String>,
    }
    let vectors: Vectors = serde_json::from_str(TOTP).unwrap();
    assert_eq!((vectors.secrets.len(), vectors.codes.len()), (3, 6));
    for (name, secret) in &vectors.secrets {
        let algorithm = serde_json::from_value(name.as_str().into()).unwrap();
        let record = record(algorithm, secret, 8);
        for vector in &vectors.codes {
            let code = &vector.codes[name];
            let matched = record.matched_step(code, Timestamp(vector.time), 0);
            assert_eq!(matched, Ok(Some(vector.step)), "{name} {}", vector.time);
        }
    }
}

#[test]
fn a_code_is_exactly_its_digits() {
    let record = published();
    assert_eq!(record.matched_step("755224", Timestamp(0), 0), Ok(Some(0)));
    for typed in [
        "", "75522", "7552240", " 755224", "755 24", "+55224", "-55224", "0x5224", "٧55224",
    ] {
        assert_eq!(
            record.matched_step(typed, Timestamp(0), 9),
            Ok(None),
            "{typed}"
        );
    }
}

#[test]
fn the_window_is_as_wide_as_it_says() {
    let record = published();
    let now = Timestamp(100 * 30 + 29);
    for (window, step, found) in [
        (0, 100, true),
        (0, 99, false),
        (0, 101, false),
        (1, 99, true),
        (1, 101, true),
        (1, 98, false),
        (1, 102, false),
        (255, 110, true),
        (255, 111, false),
    ] {
        let matched = record.matched_step(&code(&record, step), now, window);
        assert_eq!(matched, Ok(found.then_some(step)), "{window} {step}");
    }
}

#[test]
fn no_time_and_no_record_panics() {
    let mut record = published();
    for now in [0, 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(record.matched_step("000000", Timestamp(now), 10), Ok(None));
    }
    record.period = 0;
    let refused = record.matched_step("000000", Timestamp(0), 0);
    assert!(matches!(refused, Err(TotpError::Record(_))));
    record.period = u64::MAX;
    assert_eq!(
        record.matched_step("000000", Timestamp(u64::MAX), 10),
        Ok(None)
    );
    record.digits = 200;
    assert!(record.matched_step("000000", Timestamp(0), 0).is_err());
    record.digits = 6;
    record.secret = SharedSecret::new(vec![1; 15].into());
    assert!(record.matched_step("000000", Timestamp(0), 0).is_err());
}

#[test]
fn of_two_steps_with_one_code_the_newer_is_meant() {
    let record = published();
    // The first such pair of this secret within one window.
    let (old, new) = (2_386, 2_394);
    assert_eq!(code(&record, old), code(&record, new));
    let now = Timestamp(old * 30);
    assert_eq!(
        record.matched_step(&code(&record, old), now, 10),
        Ok(Some(new))
    );
}

#[test]
fn a_step_is_taken_once_and_with_it_all_before() {
    let mut record = published();
    assert!(record.accepts(0));
    assert_eq!(record.take(5), Ok(()));
    assert_eq!(record.take(5), Err(TotpError::StepUsed));
    assert_eq!(record.take(4), Err(TotpError::StepUsed));
    assert_eq!(record.last_step, Some(5));
    assert_eq!(record.take(6), Ok(()));
}

#[test]
fn new_records_are_bounded_random_and_come_back_from_json() {
    for digits in [0, 5, 9, 255] {
        assert_eq!(
            TotpRecord::new(digits, 30).unwrap_err(),
            TotpError::Digits(digits)
        );
    }
    for period in [0, 14, 301, u64::MAX] {
        assert_eq!(
            TotpRecord::new(6, period).unwrap_err(),
            TotpError::Period(period)
        );
    }
    let record = TotpRecord::new(6, 30).unwrap();
    assert_eq!(record.secret.len(), 20);
    assert_ne!(
        record.device_id(),
        TotpRecord::new(6, 30).unwrap().device_id()
    );
    let json = serde_json::to_string(&record).unwrap();
    let again: TotpRecord = serde_json::from_str(&json).unwrap();
    assert_eq!(again.device_id(), record.device_id());
    assert_eq!(serde_json::to_string(&again).unwrap(), json);
    assert!(serde_json::from_str::<TotpRecord>(&json.replace('{', r#"{"more":1,"#)).is_err());
}

#[test]
fn the_device_id_is_of_salt_and_secret() {
    let record = published();
    let same_secret = TotpRecord {
        salt: [8; 16],
        ..record.clone()
    };
    assert_ne!(record.device_id(), same_secret.device_id());
    let mut used = record.clone();
    used.take(9).unwrap();
    assert_eq!(record.device_id(), used.device_id());
    assert_eq!(record.device_id().len(), 43);
}

#[test]
fn debug_shows_no_secret() {
    assert!(format!("{:?}", published()).contains("redacted"));
    let code = QrCode::new("otpauth://totp/a").unwrap();
    assert_eq!(format!("{code:?}"), "QrCode(25 modules, redacted)");
}

#[test]
fn the_uri_is_what_apps_scan() {
    let record = published();
    assert_eq!(
        *record.otpauth_uri("Ann & Co", "ann@demo.example").unwrap(),
        "otpauth://totp/Ann%20%26%20Co:ann%40demo.example\
         ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Ann%20%26%20Co"
    );
    let other = TotpRecord {
        digits: 8,
        period: 60,
        algorithm: Algorithm::Sha256,
        ..record
    };
    let uri = other.otpauth_uri("é", "a").unwrap();
    for part in ["digits=8", "period=60", "algorithm=SHA256", "issuer=%C3%A9"] {
        assert!(uri.contains(part), "{part}");
    }
}

#[test]
fn labels_are_bounded_and_cannot_be_split() {
    let record = published();
    let long = "x".repeat(MAX_LABEL + 1);
    for bad in ["", "a:b", "a\nb", "a\0b", &long] {
        let refused = |label| Err(TotpError::Label(label));
        assert_eq!(record.otpauth_uri(bad, "a"), refused("issuer"));
        assert_eq!(record.otpauth_uri("a", bad), refused("account label"));
    }
    // The longest labels, every byte of them escaped, still make a code.
    let most = "é".repeat(MAX_LABEL / 2);
    let uri = record.otpauth_uri(&most, &most).unwrap();
    assert_eq!(scan(&QrCode::new(&uri).unwrap().png().unwrap()), *uri);
}

/// Decode a PNG into pixels, true is dark: side, then rows.
fn pixels(png: &[u8]) -> (usize, Vec<bool>) {
    let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    assert_eq!(info.width, info.height);
    assert_eq!(
        (info.color_type, info.bit_depth),
        (png::ColorType::Grayscale, png::BitDepth::One)
    );
    let side = info.width as usize;
    let dark = (0..side * side).map(|at| bytes[at / 8] >> (7 - at % 8) & 1 == 0);
    (side, dark.collect())
}

/// What another library reads in the picture.
fn scan(png: &[u8]) -> String {
    let (side, dark) = pixels(png);
    let shade = |x: usize, y: usize| if dark[y * side + x] { 0 } else { 255 };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, shade);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1);
    grids[0].decode().unwrap().1
}

/// The dark modules of an SVG, by the one path that it has: side, then rows.
fn svg_modules(svg: &str) -> (usize, Vec<bool>) {
    let side = svg.split('"').nth(3).unwrap();
    let side: usize = side.rsplit(' ').next().unwrap().parse().unwrap();
    let path = svg
        .rsplit("d=\"")
        .next()
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let mut dark = vec![false; side * side];
    for run in path.split_terminator('z') {
        let numbers = run.strip_prefix('M').unwrap();
        let (place, shape) = numbers.split_once('h').unwrap();
        let (x, y) = place.split_once(' ').unwrap();
        let (x, y): (usize, usize) = (x.parse().unwrap(), y.parse().unwrap());
        let length: usize = shape.split_once('v').unwrap().0.parse().unwrap();
        assert_eq!(shape, format!("{length}v1h-{length}"));
        dark[y * side + x..][..length].fill(true);
    }
    (side, dark)
}

#[test]
fn both_pictures_are_the_code_with_a_quiet_zone() {
    let text = published().otpauth_uri("demo", "ann").unwrap();
    let code = QrCode::new(&text).unwrap();
    let expected = qrcodegen::QrCode::encode_text(&text, qrcodegen::QrCodeEcc::Medium).unwrap();
    let svg = code.svg().unwrap();
    assert!(
        svg.capacity() <= 300 + code.size() * code.size() * 12,
        "it grew"
    );
    let (side, dark) = svg_modules(&svg);
    assert_eq!(side, code.size() + 8);
    let (pixel_side, pixels) = pixels(&code.png().unwrap());
    assert_eq!(pixel_side, side * 8);
    for y in 0..side {
        for x in 0..side {
            // Outside of the code, get_module says light.
            let (left, top) = (x as i32 - 4, y as i32 - 4);
            let module = expected.get_module(left, top);
            assert_eq!(dark[y * side + x], module, "SVG {x} {y}");
            for (dx, dy) in [(0, 0), (7, 0), (0, 7), (7, 7), (3, 4)] {
                let pixel = pixels[(y * 8 + dy) * pixel_side + x * 8 + dx];
                assert_eq!(pixel, module, "PNG {x} {y}");
            }
        }
    }
}

#[test]
fn a_text_too_long_for_a_code_is_refused() {
    assert!(matches!(
        QrCode::new(&"é".repeat(1200)),
        Err(QrError::TooLong)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn scanners_read_what_was_written(issuer in "[a-zA-Z0-9 .é]{1,12}", account in "[a-z@.]{1,20}") {
        let uri = TotpRecord::new(6, 30).unwrap().otpauth_uri(&issuer, &account).unwrap();
        prop_assert_eq!(scan(&QrCode::new(&uri).unwrap().png().unwrap()), uri.as_str());
    }
}

proptest! {
    /// Whatever is typed whenever, taken steps only go up.
    #[test]
    fn no_step_is_taken_twice(attempts in proptest::collection::vec((0u64..20, 0u64..20, 0u8..4), 1..60)) {
        let mut record = published();
        let mut taken = Vec::new();
        for (step, now, window) in attempts {
            let code = code(&record, step);
            let matched = record.matched_step(&code, Timestamp(now * 30), window).unwrap();
            prop_assert_eq!(matched.is_some(), step.abs_diff(now) <= u64::from(window));
            if let Some(step) = matched && record.take(step).is_ok() {
                prop_assert!(taken.last().is_none_or(|last| *last < step));
                taken.push(step);
            }
        }
    }

    #[test]
    fn no_typed_text_panics(typed in any::<String>(), now in any::<u64>(), window in any::<u8>()) {
        prop_assert!(published().matched_step(&typed, Timestamp(now), window).is_ok());
    }
}
