//! What authentication asks of a certificate: whose it is, and its hash for channel binding.

use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::der::oid::db::rfc5912;
use x509_cert::der::{Decode, Encode};

/// `tls-server-end-point` of RFC 5929: the certificate, hashed as its signature was, but never by
/// MD5 or SHA-1. `None` where the signature has no hash of its own (Ed25519, PSS): such a channel
/// cannot be bound, as with PostgreSQL.
#[must_use]
pub fn end_point(certificate: &CertificateDer<'_>) -> Option<Box<[u8]>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let bytes: &[u8] = certificate;
    match parsed.signature_algorithm.oid {
        MD5_WITH_RSA
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(bytes).as_slice().into()),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Some(Sha384::digest(bytes).as_slice().into())
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => {
            Some(Sha512::digest(bytes).as_slice().into())
        }
        _ => None,
    }
}

/// The key that a certificate is about.
pub(super) fn public_key(
    certificate: &CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    parsed.tbs_certificate.subject_public_key_info.to_der().ok().map(Into::into)
}

/// Not in the crate's list any more.
const MD5_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4");

/// The common name of the certificate's subject; `None` when there is not exactly one, or it holds
/// what no user name can.
#[must_use]
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let subject = parsed.tbs_certificate.subject;
    let mut names =
        subject.0.iter().flat_map(|part| part.0.iter()).filter(|attribute| attribute.oid == CN);
    let name = names.next()?;
    if names.next().is_some() {
        return None;
    }
    let text = std::str::from_utf8(name.value.value()).ok()?;
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn certificate(names: &[&str], key: &KeyPair) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.self_signed(key).expect("a certificate").der().clone()
    }

    #[test]
    fn the_end_point_is_the_hash_of_the_signature() {
        for (algorithm, size) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&PKCS_ECDSA_P384_SHA384, Some(48)),
            (&PKCS_ED25519, None),
        ] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let found = end_point(&certificate(&["db"], &key));
            assert_eq!(found.map(|hash| hash.len()), size, "{algorithm:?}");
        }
    }

    #[test]
    fn a_name_is_read_only_when_it_is_the_only_one() {
        let key = KeyPair::generate().expect("a key");
        assert_eq!(common_name(&certificate(&["ada"], &key)).as_deref(), Some("ada"));
        assert_eq!(common_name(&certificate(&[], &key)), None);
        assert_eq!(common_name(&certificate(&["a\0b"], &key)), None);
        assert_eq!(common_name(&CertificateDer::from(&b"no certificate"[..])), None);
    }
}
