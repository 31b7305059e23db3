//! Tests of certificates and join files: what is made is what is read, and every damage is refused.

use std::time::{Duration, SystemTime};

use super::*;

const CONFIG: &str = "[cluster]\nname = \"shop\"\nnodes = { a = \"10.0.0.1:7400\", b = \"10.0.0.2:7400\" }\n";

fn made(node: &str, bootstrap: bool) -> (Ca, JoinFile) {
    let now = SystemTime::now();
    let ca = Ca::create("shop", now).unwrap();
    let right = bootstrap.then(|| Bootstrap::new().unwrap());
    let join = JoinFile::issue(&ca, &NodeId::new(node), CONFIG, right, now).unwrap();
    (ca, join)
}

#[test]
fn certificates_say_who_and_how_long() {
    let now = SystemTime::now();
    let (ca, join) = made("b", false);
    let ca_identity = identity(ca.certificate()).unwrap();
    assert_eq!((ca_identity.cluster.as_str(), &ca_identity.node), ("shop", &None));
    assert!((3_650..=3_654).contains(&ca_identity.days_left(now)));
    let own = identity(&join.issued.certificate).unwrap();
    assert_eq!(own.node, Some(NodeId::new("b")));
    assert!((364..=365).contains(&own.days_left(now)));
    assert!((unix(now) - own.not_before - 2 * 86_400).abs() < 60);
    assert_ne!(own.serial, identity(&ca.issue(&NodeId::new("b"), now).unwrap().certificate).unwrap().serial);
    own.valid_at(now).unwrap();
    assert!(own.valid_at(now + Duration::from_secs(400 * DAY)).unwrap_err().contains("expired"));
    assert!(own.valid_at(now - Duration::from_secs(3 * DAY)).unwrap_err().contains("clock"));
}

/// The TLS library itself accepts a node for its name, and for no other.
#[test]
fn the_tls_library_accepts_them() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    let (ca, join) = made("b", false);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate().as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let own = CertificateDer::from_pem_slice(join.issued.certificate.as_bytes()).unwrap();
    let server = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.clone().into(), provider.clone()).build().unwrap();
    let accepts = |node: &str| {
        let name = ServerName::try_from(server_name("shop", &NodeId::new(node))).unwrap();
        rustls::client::danger::ServerCertVerifier::verify_server_cert(&*server, &own, &[], &name, &[], UnixTime::now()).is_ok()
    };
    assert!(accepts("b") && !accepts("a"));
    let client = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    client.verify_client_cert(&own, &[], UnixTime::now()).unwrap();
}

#[test]
fn ca_key_and_join_file_survive_the_way_through_text() {
    let (ca, join) = made("a", true);
    let again = Ca::from_pem(&ca.to_pem()).unwrap();
    assert_eq!((again.cluster(), again.certificate()), (ca.cluster(), ca.certificate()));
    let text = join.to_pem().unwrap();
    let read = JoinFile::from_pem(&text, SystemTime::now()).unwrap();
    assert_eq!(read, join);
    assert!(read.bootstrap.is_some());
    assert!(!format!("{ca:?}{join:?}{:?}", join.issued).contains("PRIVATE"));
    // A CA that was read again signs what the first one's certificate vouches for.
    let issued = again.issue(&NodeId::new("b"), SystemTime::now()).unwrap();
    assert!(signed_by(&issued.certificate, ca.certificate()).unwrap());
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let now = SystemTime::now();
    let (ca, join) = made("a", false);
    let (_, other) = made("a", false);
    let refused = |join: JoinFile| JoinFile::from_pem(&join.to_pem().unwrap(), now).unwrap_err().to_string();
    assert!(refused(JoinFile { ca: other.ca.clone(), ..join.clone() }).contains("not signed"));
    assert!(refused(JoinFile { node: NodeId::new("b"), ..join.clone() }).contains("not for node b"));
    assert!(refused(JoinFile { cluster: "shed".into(), ..join.clone() }).contains("shed"));
    assert!(refused(JoinFile { config: CONFIG.replace("shop", "shed"), ..join.clone() }).contains("shed"));
    assert!(refused(JoinFile { config: "x = 1".into(), ..join.clone() }).contains("HW0102"));
    let mixed = Issued { key: other.issued.key, ..join.issued.clone() };
    assert!(refused(JoinFile { issued: mixed, ..join.clone() }).contains("key is not"));
    assert!(
        refused(JoinFile { issued: Issued { certificate: ca.certificate().to_owned(), ..join.issued.clone() }, ..join.clone() })
            .contains("not for")
    );
    let late = JoinFile::from_pem(&join.to_pem().unwrap(), now + Duration::from_secs(400 * DAY)).unwrap_err().to_string();
    assert!(late.contains("certs renew"), "{late}");
}

/// As `openssl x509 -noout -fingerprint -sha256` prints it of the same certificate.
#[test]
fn a_fingerprint_is_the_one_that_openssl_prints() {
    let (ca, _) = made("a", false);
    let mut openssl = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut openssl.stdin.take().unwrap(), ca.certificate().as_bytes()).unwrap();
    let printed = String::from_utf8(openssl.wait_with_output().unwrap().stdout).unwrap();
    assert!(printed.split('=').nth(1).unwrap().starts_with(&fingerprint(ca.certificate()).unwrap()), "{printed}");
}

#[test]
fn a_damaged_text_is_refused_and_never_panics() {
    let now = SystemTime::now();
    let (ca, join) = made("a", true);
    let text = join.to_pem().unwrap();
    let error = |text: &str| JoinFile::from_pem(text, now).unwrap_err().to_string();
    assert!(error("").contains("no PEM block"));
    assert!(error(&ca.to_pem()).contains("CERTIFICATE, PRIVATE KEY"));
    assert!(error(&text.replace("Version: 1", "Version: 2")).contains("version 2"));
    assert!(error(&text.replace("Node: a\n", "")).contains("does not say"));
    assert!(error(&format!("{text}{}", ca.certificate())).contains("BOOTSTRAP, CERTIFICATE"));
    for cut in (0..text.len()).step_by(97) {
        assert!(JoinFile::from_pem(&text[..cut], now).is_err());
        assert!(Ca::from_pem(&text[..cut]).is_err());
    }
    assert!(error(text.split("-----BEGIN HOTWARM BOOTSTRAP").next().unwrap()).contains("cut short"));
    assert!(Ca::from_pem(&text).is_err());
}
