//! Compact JWS (RFC 7515) with ES256. The signer's key stands in the header of
//! DPoP proofs and of app-key proofs; in that of enrolment tickets stands its name.
//!
//! Called by `dpop` and `ticket` only. Parsing and verifying are two steps with two types:
//! what [`parse`] returns is attacker's text in order, and only
//! [`Unverified::verify`] gives the key out. It must never look at `alg` to
//! choose an algorithm: there is one, and the header has to agree.
//!
//! `jsonwebtoken` is not used for this half: it does not read a key from the
//! header without dropping its private members, and it ignores `crit`. The
//! tests make their proofs with it, so that two implementations must agree.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::jwk::PublicJwk;
use super::{quoted, unb64, unb64_array};

/// Longest compact JWS that is looked at, in bytes.
pub const MAX_JWS: usize = 4096;

/// A JWS that has been taken apart, and of which nothing is believed yet.
#[derive(Debug)]
pub(crate) struct Unverified<'a, C> {
    /// Claims to compare. They mean nothing before [`Unverified::verify`].
    pub(crate) claims: C,
    key: PublicJwk,
    signed: &'a str,
    signature: [u8; 64],
}

#[derive(Deserialize)]
struct Header {
    typ: Option<String>,
    alg: Option<String>,
    jwk: Option<serde_json::Value>,
    kid: Option<String>,
    // RFC 7515 section 4.1.11: an extension that is not understood must be
    // refused, and none is understood here. Other members may be ignored.
    crit: Option<serde::de::IgnoredAny>,
}

/// Take `text` apart. `typ` is the one header type accepted: it keeps a
/// signature made for one purpose from being used for another.
///
/// Errors are sentences for the developer.
pub(crate) fn parse<'a, C: DeserializeOwned>(
    text: &'a str,
    typ: &'static str,
) -> Result<Unverified<'a, C>, String> {
    take_apart(text, typ, |header| {
        let jwk = header
            .jwk
            .ok_or("header: jwk is missing; put the public key there")?;
        serde_json::from_value(jwk).map_err(|error| format!("header: {error}"))
    })
}

/// The same for a signer whom the header names by `kid`. `key_of` finds the key among those
/// that are trusted; one that the header brings along is not looked at.
pub(crate) fn parse_by_kid<'a, C: DeserializeOwned>(
    text: &'a str,
    typ: &'static str,
    key_of: impl FnOnce(&str) -> Result<PublicJwk, String>,
) -> Result<Unverified<'a, C>, String> {
    take_apart(text, typ, |header| {
        let kid = header
            .kid
            .ok_or("header: kid is missing; it names the key that signed")?;
        key_of(&kid)
    })
}

fn take_apart<'a, C: DeserializeOwned>(
    text: &'a str,
    typ: &'static str,
    key_of: impl FnOnce(Header) -> Result<PublicJwk, String>,
) -> Result<Unverified<'a, C>, String> {
    if text.len() > MAX_JWS {
        return Err(format!(
            "it is {} bytes long, at most {MAX_JWS} are accepted",
            text.len()
        ));
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(NOT_COMPACT)?;
    let (header, claims) = signed.split_once('.').ok_or(NOT_COMPACT)?;
    if claims.contains('.') {
        return Err(NOT_COMPACT.into());
    }
    let key = key_of(parse_header(&json_part("header", header)?, typ)?)?;
    let claims = serde_json::from_slice(&json_part("claims", claims)?)
        .map_err(|error| format!("claims: {error}"))?;
    let signature = unb64_array(signature)
        .ok_or("signature: expected 64 bytes (r || s, not DER) as unpadded base64url")?;
    Ok(Unverified {
        claims,
        key,
        signed,
        signature,
    })
}

const NOT_COMPACT: &str = "expected a compact JWS, header.claims.signature, each in base64url";

fn json_part(name: &str, part: &str) -> Result<Vec<u8>, String> {
    unb64(part).ok_or_else(|| format!("{name}: not unpadded base64url"))
}

fn parse_header(json: &[u8], typ: &'static str) -> Result<Header, String> {
    let header: Header =
        serde_json::from_slice(json).map_err(|error| format!("header: {error}"))?;
    demand("typ", typ, header.typ.as_deref())?;
    demand("alg", "ES256", header.alg.as_deref())?;
    if header.crit.is_some() {
        return Err("header: crit: no critical extension is understood; leave it out".into());
    }
    Ok(header)
}

fn demand(member: &str, expected: &str, found: Option<&str>) -> Result<(), String> {
    match found {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(format!(
            "header: {member}: expected {expected:?}, found {}",
            quoted(found)
        )),
        None => Err(format!(
            "header: {member} is missing, expected {expected:?}"
        )),
    }
}

impl<C> Unverified<'_, C> {
    /// The key that the header names, to compare. Whoever sent it need not hold it.
    pub(crate) fn claimed_key(&self) -> &PublicJwk {
        &self.key
    }

    /// Check the signature, and give out the claims and the key that signed them.
    pub(crate) fn verify(self) -> Result<(C, PublicJwk), String> {
        if !self.key.verifies(self.signed.as_bytes(), &self.signature) {
            return Err("signature: it does not verify under the key that the header gives".into());
        }
        Ok((self.claims, self.key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop
    use super::*;
    use serde_json::Value;

    /// RFC 9449 section 4.1, figure 2: the proof of a token request.
    const TOKEN_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
        VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
        nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
        QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj\
        oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia\
        WF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg\
        4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";

    /// RFC 9449 section 7.1, figure 12: the proof of a protected resource request.
    const RESOURCE_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
        VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
        nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
        QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj\
        oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z\
        WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF\
        c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E\
        OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";

    #[test]
    fn published_proofs_verify() {
        for (proof, jti) in [
            (TOKEN_REQUEST, "-BwC3ESc6acc2lTc"),
            (RESOURCE_REQUEST, "e1j3V_bKic8-LAEB"),
        ] {
            let (claims, key) = parse::<Value>(proof, "dpop+jwt").unwrap().verify().unwrap();
            assert_eq!(claims["jti"], jti);
            assert_eq!(
                key.thumbprint(),
                "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
            );
        }
    }

    #[test]
    fn published_ath_is_the_hash_of_the_published_token() {
        let (claims, _) = parse::<Value>(RESOURCE_REQUEST, "dpop+jwt")
            .unwrap()
            .verify()
            .unwrap();
        let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
        assert_eq!(
            claims["ath"],
            super::super::b64(&super::super::sha256(&[token.as_bytes()]))
        );
    }

    #[test]
    fn a_signature_of_another_message_is_refused() {
        let (_, signature) = RESOURCE_REQUEST.rsplit_once('.').unwrap();
        let (signed, _) = TOKEN_REQUEST.rsplit_once('.').unwrap();
        let mixed = format!("{signed}.{signature}");
        let error = parse::<Value>(&mixed, "dpop+jwt")
            .unwrap()
            .verify()
            .unwrap_err();
        assert!(error.contains("does not verify"));
    }

    #[test]
    fn the_type_is_demanded() {
        let error = parse::<Value>(TOKEN_REQUEST, "custodyd-app-key+jwt").unwrap_err();
        assert_eq!(
            error,
            r#"header: typ: expected "custodyd-app-key+jwt", found "dpop+jwt""#
        );
    }
}
