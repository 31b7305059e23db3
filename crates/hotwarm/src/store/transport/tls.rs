//! Mutual TLS between nodes: TLS 1.3 only, both certificates signed by the cluster's authority and naming `hotwarm://CLUSTER/node/NAME`.
//!
//! Must never accept a certificate by its signature alone (the name and the revocation list decide too), and never print a key.
//! The main path enters at [`Tls::load`]; every connection then asks [`Identity::of`] who the other side is.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use hotwarm_core::ids::NodeId;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::pki::normal_serial;
use crate::config::pki::trust::Servers;

/// What a node shows and what it trusts, as PEM text.
#[derive(Clone)]
pub struct TlsMaterial {
    /// The cluster's authority; more than one while it is being replaced.
    pub ca: String,
    /// This node's certificate, followed by intermediates if there are any.
    pub certificate: String,
    /// This node's private key.
    pub key: String,
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

/// Why TLS material, or the other side's certificate, is not used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} that is not PEM ({why}): install the node's join file again")]
    Pem { what: &'static str, why: String },
    #[error("unreadable certificate ({0}): issue it again with `hotwarm certs renew`")]
    Certificate(String),
    #[error("certificate without a name of the form hotwarm://CLUSTER/node/NAME: it was not issued by hotwarm")]
    NoName,
    #[error("certificate for {found} where {expected} was expected: the wrong node answers there, or the wrong join file was installed")]
    WrongName { found: String, expected: String },
    #[error(
        "certificate {serial} of {name} is revoked (tls/revoked names it): if the node is to go on, `hotwarm certs renew`, and `hotwarm join` there"
    )]
    Revoked { serial: String, name: String },
    #[error("certificate of {name} has expired, or is not valid yet: renew it with `hotwarm certs renew`, and check the clock")]
    OutOfDate { name: String },
    #[error(
        "certificate of {name} is not accepted by the cluster's own authority ({why}): certificate and authority are of different clusters"
    )]
    NotOurs { name: String, why: String },
    #[error("TLS material that does not fit together: {0}")]
    Setup(#[from] rustls::Error),
    #[error("no TLS: this transport was started for loopback only, restart the node with certificates")]
    NotTls,
}

/// Who a certificate says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: String,
    pub node: NodeId,
    /// The serial number, lower-case hexadecimal without leading zeros: what a revocation list names.
    pub serial: String,
    /// The last second at which it is valid, since 1970.
    pub not_after_s: i64,
}

impl Identity {
    /// Reads the name, serial number and end of a certificate. It checks no signature: that happened in the handshake.
    ///
    /// # Errors
    /// When it cannot be parsed or has not exactly one hotwarm name.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let unreadable = |why: &dyn fmt::Display| TlsError::Certificate(why.to_string());
        let (_, x509) = X509Certificate::from_der(certificate).map_err(|e| unreadable(&e))?;
        let names = x509.subject_alternative_name().map_err(|e| unreadable(&e))?.ok_or(TlsError::NoName)?;
        let mut found = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("hotwarm://")?.split_once("/node/"),
            _ => None,
        });
        let (Some((cluster, node)), None) = (found.next(), found.next()) else { return Err(TlsError::NoName) };
        let serial: String = x509.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            cluster: cluster.to_owned(),
            node: NodeId::new(node),
            serial: normal_serial(&serial),
            not_after_s: x509.validity().not_after.timestamp(),
        })
    }

    /// Is it the certificate of `node` of `cluster`, and not revoked?
    ///
    /// # Errors
    /// When it is another's, or revoked.
    pub(super) fn check(&self, cluster: &str, node: &NodeId, revoked: &BTreeSet<String>) -> Result<(), TlsError> {
        if self.cluster != cluster || self.node != *node {
            return Err(TlsError::WrongName { found: self.to_string(), expected: format!("hotwarm://{cluster}/node/{node}") });
        }
        self.check_revoked(revoked)
    }

    pub(super) fn check_revoked(&self, revoked: &BTreeSet<String>) -> Result<(), TlsError> {
        if revoked.contains(&self.serial) {
            return Err(TlsError::Revoked { serial: self.serial.clone(), name: self.to_string() });
        }
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hotwarm://{}/node/{}", self.cluster, self.node)
    }
}

/// Both directions' TLS configuration of this node, made from one [`TlsMaterial`].
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    /// The operator's API: it shows the same certificate and asks for none, but for a token.
    pub(super) api: Arc<ServerConfig>,
    pub(super) own: Identity,
    /// The own certificate is not valid at this time: nobody will accept it.
    pub(super) out_of_date: bool,
}

impl Tls {
    /// Checks that the material fits together and is for node `me` of `cluster`. One that is out of date is let through and marked, so
    /// that a node with a wrong clock still serves what needs no peer.
    ///
    /// # Errors
    /// When something is unreadable, for another node or cluster, or not signed by the authority.
    pub(super) fn load(material: &TlsMaterial, cluster: &str, me: &NodeId) -> Result<Self, TlsError> {
        let chain = certificates("certificate", &material.certificate)?;
        let leaf = chain.first().ok_or_else(|| TlsError::Pem { what: "certificate", why: "it is empty".into() })?;
        let own = Identity::of(leaf)?;
        own.check(cluster, me, &BTreeSet::new())?;
        let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes())
            .map_err(|e| TlsError::Pem { what: "private key", why: e.to_string() })?;
        let mut roots = RootCertStore::empty();
        for ca in certificates("authority", &material.ca)? {
            roots.add(ca)?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|e| TlsError::Pem { what: "authority", why: e.to_string() })?;
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        let out_of_date = match clients.verify_client_cert(leaf, &chain[1..], UnixTime::now()) {
            Ok(_) => false,
            Err(rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })) => true,
            Err(e) => return Err(TlsError::NotOurs { name: own.to_string(), why: e.to_string() }),
        };
        let server = |clients: Arc<dyn ClientCertVerifier>| {
            let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])?
                .with_client_cert_verifier(clients)
                .with_single_cert(chain.clone(), key.clone_key())?;
            // A resumed session would skip the look at the certificate, and with it expiry and revocation.
            server.send_tls13_tickets = 0;
            server.session_storage = Arc::new(NoServerSessionStorage {});
            Ok::<_, rustls::Error>(server)
        };
        let mut api = server(Arc::new(NoClientAuth {}))?;
        api.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = server(clients)?;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            // Its name is looked at by `Identity::check`, before the first byte of ours is sent.
            .with_custom_certificate_verifier(Arc::new(Servers::of_any_name(roots, Arc::clone(&provider))))
            .with_client_auth_cert(chain, key)?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), api: Arc::new(api), own, out_of_date })
    }
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| TlsError::Pem { what, why: e.to_string() })
}
