//! The device identifier of a passkey: the hash of its public key.
//!
//! Called by `passkey` at registration, and by `service/` to compare a stored
//! passkey with its binding. The library does not keep the bytes of the key as
//! they came, so they are built anew in the one canonical form (RFC 9052,
//! section 9; RFC 9053, section 7; RFC 8230 for RSA). Two forms of one key can
//! therefore not have two identifiers.

use webauthn_rs::prelude::{COSEAlgorithm, COSEKey, COSEKeyType, ECDSACurve, EDDSACurve};

use super::super::{b64, sha256};

/// `base64url(SHA-256(canonical CBOR COSE_Key))`, 43 characters.
pub fn device_id(key: &COSEKey) -> String {
    b64(&sha256(&[&canonical(key)]))
}

/// COSE_Key in deterministic CBOR: the map keys 1, 3, -1, -2, -3 in this order.
fn canonical(key: &COSEKey) -> Vec<u8> {
    let mut cbor = Cbor(Vec::with_capacity(512));
    match &key.key {
        COSEKeyType::EC_EC2(ec) => {
            cbor.map(5).key(1).int(2);
            cbor.key(3).int(algorithm(&key.type_));
            cbor.key(-1).int(match ec.curve {
                ECDSACurve::SECP256R1 => 1,
                ECDSACurve::SECP384R1 => 2,
                ECDSACurve::SECP521R1 => 3,
            });
            cbor.key(-2).bytes(&ec.x);
            cbor.key(-3).bytes(&ec.y);
        }
        COSEKeyType::EC_OKP(okp) => {
            cbor.map(4).key(1).int(1);
            cbor.key(3).int(algorithm(&key.type_));
            cbor.key(-1).int(match okp.curve {
                EDDSACurve::ED25519 => 6,
                EDDSACurve::ED448 => 7,
            });
            cbor.key(-2).bytes(&okp.x);
        }
        COSEKeyType::RSA(rsa) => {
            cbor.map(4).key(1).int(3);
            cbor.key(3).int(algorithm(&key.type_));
            cbor.key(-1).bytes(&rsa.n);
            cbor.key(-2).bytes(&rsa.e);
        }
    }
    cbor.0
}

/// The IANA number, which is the discriminant of the library's enum.
fn algorithm(algorithm: &COSEAlgorithm) -> i64 {
    *algorithm as i64
}

/// The four CBOR items (RFC 8949) that a COSE_Key needs, shortest form always.
struct Cbor(Vec<u8>);

impl Cbor {
    fn map(&mut self, entries: u64) -> &mut Self {
        self.head(5, entries)
    }

    fn key(&mut self, key: i64) -> &mut Self {
        self.int(key)
    }

    fn int(&mut self, value: i64) -> &mut Self {
        // A negative integer n is written as major type 1 with -1 - n.
        if value < 0 {
            self.head(1, value.unsigned_abs() - 1)
        } else {
            self.head(0, value.unsigned_abs())
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(2, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn head(&mut self, major: u8, argument: u64) -> &mut Self {
        let major = major << 5;
        match argument {
            0..=23 => self.0.push(major | argument as u8),
            24..=0xff => self.0.extend([major | 24, argument as u8]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend((argument as u16).to_be_bytes());
            }
            _ => {
                // Longer than any key: the HTTP layer bounds bodies to 64 KiB.
                self.0.push(major | 27);
                self.0.extend(argument.to_be_bytes());
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use webauthn_rs::prelude::{COSEEC2Key, COSEOKPKey, COSERSAKey};

    #[test]
    fn ec2_is_the_77_bytes_that_ctap2_writes() {
        let key = COSEKey {
            type_: COSEAlgorithm::ES256,
            key: COSEKeyType::EC_EC2(COSEEC2Key {
                curve: ECDSACurve::SECP256R1,
                x: vec![0xaa; 32],
                y: vec![0xbb; 32],
            }),
        };
        let mut expected = vec![0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
        expected.extend([0xaa; 32]);
        expected.extend([0x22, 0x58, 0x20]);
        expected.extend([0xbb; 32]);
        assert_eq!(canonical(&key), expected);
        assert_eq!(expected.len(), 77);
        assert_eq!(device_id(&key).len(), 43);
    }

    #[test]
    fn rsa_and_okp_follow_their_documents() {
        let rsa = COSEKey {
            type_: COSEAlgorithm::RS256,
            key: COSEKeyType::RSA(COSERSAKey {
                n: vec![0xcc; 256],
                e: [1, 0, 1],
            }),
        };
        let mut expected = vec![
            0xa4, 0x01, 0x03, 0x03, 0x39, 0x01, 0x00, 0x20, 0x59, 0x01, 0x00,
        ];
        expected.extend([0xcc; 256]);
        expected.extend([0x21, 0x43, 0x01, 0x00, 0x01]);
        assert_eq!(canonical(&rsa), expected);
        let okp = COSEKey {
            type_: COSEAlgorithm::EDDSA,
            key: COSEKeyType::EC_OKP(COSEOKPKey {
                curve: EDDSACurve::ED25519,
                x: vec![0xdd; 32],
            }),
        };
        let mut expected = vec![0xa4, 0x01, 0x01, 0x03, 0x27, 0x20, 0x06, 0x21, 0x58, 0x20];
        expected.extend([0xdd; 32]);
        assert_eq!(canonical(&okp), expected);
    }
}
