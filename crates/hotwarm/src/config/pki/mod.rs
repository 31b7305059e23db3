//! The cluster's own certificates: a CA made by `init` and kept offline, one certificate a node, both on ECDSA P-256.
//!
//! A node is who its certificate says: SAN URI `hotwarm://CLUSTER/node/NAME`, and the same as a DNS name for the TLS library's own check. Main
//! path: [`Ca::create`] -> [`Ca::issue`] -> [`JoinFile`] -> [`identity`]. Keys are never printed: `Debug` leaves them out.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotwarm_core::ids::NodeId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use serde::Serialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::units::is_name;

mod join;
mod revoked;
pub mod trust;

pub use join::{Bootstrap, JoinFile};
pub use revoked::{is_revoked, normal_serial, revoked};

/// Before now, so that a clock that is behind does not refuse a new certificate.
const BACKDATED: Duration = Duration::from_secs(2 * DAY);
const CA_VALID: Duration = Duration::from_secs(3_653 * DAY);
const NODE_VALID: Duration = Duration::from_secs(365 * DAY);
const DAY: u64 = 86_400;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a certificate or key could not be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the system gives no random numbers")]
    Random,
    #[error("not a certificate of a hotwarm cluster: {0}")]
    Certificate(String),
    #[error("not a hotwarm CA key: {0}")]
    CaKey(String),
    #[error("not a usable join file: {0}")]
    Join(String),
}

/// Who a certificate is for, and how long. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    pub cluster: String,
    /// `None` for the CA itself.
    pub node: Option<NodeId>,
    pub not_before: i64,
    pub not_after: i64,
    /// Hexadecimal.
    pub serial: String,
}

impl Identity {
    /// Whole days until it expires; negative once it has.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (self.not_after - unix(now)).div_euclid(86_400)
    }

    /// # Errors
    /// The sentence that says why it is not valid at `now`.
    pub fn valid_at(&self, now: SystemTime) -> Result<(), String> {
        let now = unix(now);
        if now > self.not_after {
            return Err(format!("it expired {} days ago", (now - self.not_after) / 86_400));
        }
        if now < self.not_before {
            return Err("it is not valid yet: this machine's clock is days behind".into());
        }
        Ok(())
    }
}

/// A node's certificate and key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// The cluster's CA with its key.
pub struct Ca {
    cluster: String,
    certificate: String,
    key: KeyPair,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Ca {
    /// A new CA for `cluster`, valid for ten years from `now`.
    ///
    /// # Errors
    /// If the system gives no random numbers or `cluster` is no name.
    pub fn create(cluster: &str, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = params(cluster, format!("hotwarm CA of {cluster}"), now, CA_VALID)?;
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(format!("hotwarm://{cluster}/ca"))?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { cluster: cluster.to_owned(), certificate, key })
    }

    /// The text of `ca.key`: certificate and key.
    #[must_use]
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.certificate, self.key.serialize_pem())
    }

    /// Reads what [`Ca::to_pem`] wrote.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let blocks = pem::parse_many(text).map_err(|error| Error::CaKey(format!("its text is damaged: {error}")))?;
        let [certificate, key] = blocks.as_slice() else {
            return Err(Error::CaKey(format!("it holds {} PEM blocks, a certificate and a key were expected", blocks.len())));
        };
        if (certificate.tag(), key.tag()) != ("CERTIFICATE", "PRIVATE KEY") {
            return Err(Error::CaKey(format!("it holds {} and {}", certificate.tag(), key.tag())));
        }
        let identity = identity_der(certificate.contents())?;
        if identity.node.is_some() {
            return Err(Error::CaKey("the certificate is a node's, not a CA's".into()));
        }
        let pair = KeyPair::from_pem(&pem::encode(key)).map_err(|_| Error::CaKey("its key cannot be read".into()))?;
        let certificate = encode(certificate);
        if !belongs(&pair, &certificate)? {
            return Err(Error::CaKey("certificate and key do not belong together".into()));
        }
        Ok(Self { cluster: identity.cluster, certificate, key: pair })
    }

    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The CA's certificate as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A new key and certificate for `node`, valid for one year from `now`.
    ///
    /// # Errors
    /// If the system gives no random numbers or `node` is no name.
    pub fn issue(&self, node: &NodeId, now: SystemTime) -> Result<Issued, Error> {
        let key = KeyPair::generate()?;
        let mut params = params(node.as_str(), format!("{node} of {}", self.cluster), now, NODE_VALID)?;
        params.subject_alt_names = vec![
            SanType::URI(Ia5String::try_from(format!("hotwarm://{}/node/{node}", self.cluster))?),
            SanType::DnsName(Ia5String::try_from(server_name(&self.cluster, node))?),
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, &self.key)?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

/// The name that a TLS client asks `node` for.
#[must_use]
pub fn server_name(cluster: &str, node: &NodeId) -> String {
    format!("{node}.{cluster}.hotwarm.internal")
}

/// Who a certificate (PEM, the first block) is for. It verifies no signature.
///
/// # Errors
/// What is wrong with the certificate.
pub fn identity(certificate: &str) -> Result<Identity, Error> {
    identity_der(&der(certificate)?)
}

/// How a certificate (PEM) begins that two people compare: the first 8 bytes of its SHA-256, as `openssl x509 -fingerprint -sha256` prints them.
///
/// # Errors
/// What is wrong with the text.
pub fn fingerprint(certificate: &str) -> Result<String, Error> {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    let hash = suite.common.hash_provider.hash(&der(certificate)?);
    Ok(hash.as_ref()[..8].iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"))
}

/// Who a certificate (DER) is for. It verifies no signature: the TLS library did, or the caller must.
///
/// # Errors
/// What is wrong with the certificate.
pub fn identity_der(certificate: &[u8]) -> Result<Identity, Error> {
    let wrong = |what: &str| Error::Certificate(what.to_owned());
    let parsed = x509(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|_| wrong("its names cannot be read"))?;
    let names = names.ok_or_else(|| wrong("it names nobody"))?;
    let mut ours = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("hotwarm://"),
        _ => None,
    });
    let (Some(name), None) = (ours.next(), ours.next()) else {
        return Err(wrong("it does not have exactly one name that begins with hotwarm://"));
    };
    let (cluster, node) = match name.split('/').collect::<Vec<_>>().as_slice() {
        [cluster, "ca"] if parsed.is_ca() => (*cluster, None),
        [cluster, "node", node] if !parsed.is_ca() && is_name(node) => (*cluster, Some(NodeId::new(node))),
        _ => return Err(wrong("its name is neither hotwarm://CLUSTER/node/NAME nor hotwarm://CLUSTER/ca")),
    };
    if !is_name(cluster) {
        return Err(wrong("its cluster's name is no name"));
    }
    Ok(Identity {
        cluster: cluster.to_owned(),
        node,
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

fn params(name: &str, common: String, now: SystemTime, valid: Duration) -> Result<CertificateParams, Error> {
    if !is_name(name) {
        return Err(Error::Certificate(format!("`{name}` is not a name")));
    }
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(unix(now).unsigned_abs());
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + valid;
    params.distinguished_name.push(DnType::CommonName, common);
    let mut serial: [u8; 16] = random()?;
    // Positive and of full length, as RFC 5280 4.1.2.2 wants it.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

fn unix(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// One block, line ends of Unix.
fn encode(block: &pem::Pem) -> String {
    pem::encode_config(block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

fn der(certificate: &str) -> Result<Vec<u8>, Error> {
    let block = pem::parse(certificate).map_err(|error| Error::Certificate(format!("its text is damaged: {error}")))?;
    match block.tag() {
        "CERTIFICATE" => Ok(block.into_contents()),
        tag => Err(Error::Certificate(format!("it is a {tag}"))),
    }
}

fn x509(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::Certificate("it is damaged".into())),
    }
}

/// True if the key is the one that the certificate (PEM) is about.
fn belongs(key: &KeyPair, certificate: &str) -> Result<bool, Error> {
    let der = der(certificate)?;
    let public = x509(&der)?.public_key().subject_public_key.data.to_vec();
    Ok(key.public_key_raw() == public)
}

/// True if `ca` signed `certificate`, both PEM.
fn signed_by(certificate: &str, ca: &str) -> Result<bool, Error> {
    let (certificate, ca) = (der(certificate)?, der(ca)?);
    let ca = x509(&ca)?;
    Ok(x509(&certificate)?.verify_signature(Some(ca.public_key())).is_ok())
}

#[cfg(test)]
mod tests;
