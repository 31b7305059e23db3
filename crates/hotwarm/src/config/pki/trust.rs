//! What the other end of a connection must show: a certificate that the cluster's authority signed, in time, and for clients of the API the
//! name of one of its nodes.
//!
//! Names are URIs, which the TLS library does not match: it must never be asked to match a host instead. Main path: [`client`] for a
//! connection to any node of the authority's cluster; [`Servers`] for who looks at the name afterwards.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::{Error, identity, identity_der};

/// The TLS of a client that talks to whichever node of the cluster of `authority` (PEM, its certificate) answers.
///
/// # Errors
/// It is not the certificate of a cluster's authority.
pub fn client(authority: &str) -> Result<ClientConfig, Error> {
    let wrong = |why: String| Error::Certificate(why);
    let own = identity(authority)?;
    if own.node.is_some() {
        return Err(wrong("it is a node's, and that of the cluster's authority was expected (tls/ca.pem)".into()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(format!("its text is damaged: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let servers = Servers { roots: Arc::new(roots), provider: Arc::clone(&provider), cluster: Some(own.cluster) };
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let config = config.map_err(|error| wrong(error.to_string()))?;
    let mut config = config.dangerous().with_custom_certificate_verifier(Arc::new(servers)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Accepts what an authority signed and has not expired; with `cluster`, only one of its nodes.
#[derive(Debug)]
pub struct Servers {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    cluster: Option<String>,
}

impl Servers {
    /// Whoever one of `roots` vouches for: whose name it is must be looked at before the first byte is sent.
    #[must_use]
    pub const fn of_any_name(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Self {
        Self { roots, provider, cluster: None }
    }

    fn is_named(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let shown = identity_der(certificate)?;
        match &shown.node {
            Some(_) if shown.cluster == *cluster => Ok(()),
            _ => Err(Error::Certificate(format!("it is of cluster {}, and a node of {cluster} was expected", shown.cluster))),
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        self.is_named(end_entity).map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use hotwarm_core::ids::NodeId;

    use super::super::Ca;
    use super::*;

    fn accepts(authority: &Ca, shown: &str, after: Duration) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let servers = Servers { roots: Arc::new(roots), provider, cluster: Some("shop".into()) };
        let shown = CertificateDer::from_pem_slice(shown.as_bytes()).unwrap();
        let now = UnixTime::since_unix_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + after);
        let name = ServerName::try_from("x.internal").unwrap();
        servers.verify_server_cert(&shown, &[], &name, &[], now).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn only_a_node_of_the_authoritys_cluster_is_trusted() {
        let now = SystemTime::now();
        let (shop, same_name) = (Ca::create("shop", now).unwrap(), Ca::create("shop", now).unwrap());
        let of = |ca: &Ca| ca.issue(&NodeId::new("b"), now).unwrap().certificate;
        accepts(&shop, &of(&shop), Duration::ZERO).unwrap();
        assert!(accepts(&shop, &of(&shop), Duration::from_secs(366 * 86_400)).unwrap_err().contains("xpired"));
        assert!(accepts(&shop, &of(&same_name), Duration::ZERO).is_err(), "another authority of the same name");
        assert!(accepts(&shop, shop.certificate(), Duration::ZERO).is_err(), "the authority is no node");
        // The authority's own signature on another cluster's name.
        let shed = Ca { cluster: "shed".into(), certificate: shop.certificate.clone(), key: shop.key };
        let other = accepts(&shed, &of(&shed), Duration::ZERO).unwrap_err();
        assert!(other.contains("it is of cluster shed"), "{other}");
    }

    #[test]
    fn an_authority_is_one() {
        let now = SystemTime::now();
        let ca = Ca::create("shop", now).unwrap();
        client(ca.certificate()).unwrap();
        client(&ca.to_pem()).unwrap();
        for (wrong, said) in [(ca.issue(&NodeId::new("b"), now).unwrap().certificate, "a node's"), ("x".to_owned(), "damaged")] {
            let told = client(&wrong).unwrap_err().to_string();
            assert!(told.contains(said), "{told}");
        }
    }
}
