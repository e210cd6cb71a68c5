//! The time at which a server's certificate is verified: that of the clock, or, while the clock is not trusted, the earliest that it can be.
//!
//! A device that lay in a store room believes that it is as late as when it was last used, or built. The server's certificate was renewed since,
//! and would not be valid yet. That it was issued says that it is as late as that: so the time is the latest of what the clock cannot be before
//! and the beginnings of the presented certificates. Signatures, names and ends are verified as always, at that time.

use std::sync::Arc;

use rtlive_core::time::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::outlet::Clock;

/// Verifies as the library does, at the time of the agent's clock.
pub(super) struct Verifier {
    pub(super) inner: Arc<WebPkiServerVerifier>,
    pub(super) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let now = match self.clock.at_least() {
            None => self.clock.now(),
            Some(at_least) => {
                let chain = std::iter::once(end_entity).chain(intermediates);
                chain.filter_map(|certificate| not_before(certificate)).fold(at_least, Timestamp::max)
            }
        };
        let now = UnixTime::since_unix_epoch(now.since(Timestamp::EPOCH));
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// When a certificate begins to be valid (RFC 5280, section 4.1); `None` where that cannot be read, which the verification will say.
fn not_before(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, behind)) = element(rest, VERSION) {
        rest = behind;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = element(rest, tag)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    if let Some((text, _)) = element(validity, UTC_TIME) {
        // Two digits of the year: 50 and later are of the last century.
        let century = if text.first()? < &b'5' { "20" } else { "19" };
        return time(&format!("{century}{}", std::str::from_utf8(text).ok()?));
    }
    let (text, _) = element(validity, GENERALIZED_TIME)?;
    time(std::str::from_utf8(text).ok()?)
}

/// `20260101000000Z`.
fn time(text: &str) -> Option<Timestamp> {
    let part = |from: usize, to: usize| text.get(from..to);
    let (date, clock) = (
        format!("{}-{}-{}", part(0, 4)?, part(4, 6)?, part(6, 8)?),
        format!("{}:{}:{}", part(8, 10)?, part(10, 12)?, part(12, 14)?),
    );
    (text.get(14..) == Some("Z")).then(|| format!("{date}T{clock}Z").parse().ok()).flatten()
}

/// The contents of the element of this tag at the beginning of some DER, and what is behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = der else { return None };
    let (length, rest) = match *length {
        short @ ..=0x7f => (usize::from(short), rest),
        // No certificate is longer than two bytes of length can say, or it is refused elsewhere.
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), rest.get(2..)?),
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = contents.len();
        let header = if length < 0x80 { vec![tag, length as u8] } else { vec![tag, 0x81, length as u8] };
        [header, contents.to_vec()].concat()
    }

    fn certificate(tag: u8, not_before: &str) -> Vec<u8> {
        let validity = [der(tag, not_before.as_bytes()), der(UTC_TIME, b"490101000000Z")].concat();
        let tbs = [
            der(VERSION, &der(INTEGER, &[2])),
            der(INTEGER, &[1, 2, 3]),
            der(SEQUENCE, &[6, 1, 0]),
            der(SEQUENCE, &[0x31; 100]),
            der(SEQUENCE, &validity),
        ];
        der(SEQUENCE, &der(SEQUENCE, &tbs.concat()))
    }

    #[test]
    fn the_beginning_of_a_certificate_is_found_in_both_its_forms() {
        let found = |tag, text| not_before(&certificate(tag, text)).map(|time| time.to_string());
        assert_eq!(found(UTC_TIME, "260301123456Z").as_deref(), Some("2026-03-01T12:34:56Z"));
        assert_eq!(found(UTC_TIME, "991231235959Z").as_deref(), Some("1999-12-31T23:59:59Z"));
        assert_eq!(found(GENERALIZED_TIME, "20510301123456Z").as_deref(), Some("2051-03-01T12:34:56Z"));
        for wrong in ["", "260301123456", "26030112345Z", "260301123456+0100", "269901123456Z", "2603é01123456Z"] {
            assert_eq!(found(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_cut_and_no_byte_panics() {
        let whole = certificate(UTC_TIME, "260301123456Z");
        for place in 0..whole.len() {
            let _ = not_before(&whole[..place]);
            for byte in 0..=255 {
                let mut altered = whole.clone();
                altered[place] = byte;
                let _ = not_before(&altered);
            }
        }
    }
}
