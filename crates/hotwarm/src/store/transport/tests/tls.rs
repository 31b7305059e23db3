//! Mutual TLS between nodes: who is let in, who is not, and what changes while running.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue_until(&self, name: &str, year: i32) -> TlsMaterial {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        TlsMaterial { ca: self.pem.clone(), certificate, key: key.serialize_pem() }
    }

    fn issue(&self, node: &str) -> TlsMaterial {
        self.issue_until(&format!("hotwarm://shop/node/{node}"), 2100)
    }

    fn node(&self, name: &str) -> Node {
        secure(name, self.issue(name))
    }
}

fn secure(name: &str, material: TlsMaterial) -> Node {
    Node::start(name, "shop", any_port(), Security::Tls(material))
}

fn serial(node: &Node) -> String {
    node.handle.own_identity().unwrap().serial
}

#[test]
fn nodes_of_one_authority_talk() {
    let ca = Authority::new();
    let (a, b) = (ca.node("a"), ca.node("b"));
    a.knows(&[("b", &b)]);
    b.knows(&[("a", &a)]);
    let large = vec![5; 3 * 1024 * 1024];
    a.handle.send(&"b".into(), b"to b".to_vec()).unwrap();
    b.handle.send(&"a".into(), large.clone()).unwrap();
    assert_eq!(b.receive(), ("a".into(), b"to b".to_vec()));
    assert!(a.receive() == ("b".into(), large));
    let own = a.handle.own_identity().unwrap();
    assert_eq!((own.to_string().as_str(), own.not_after_s), ("hotwarm://shop/node/a", 4_102_444_800));
}

#[test]
fn another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (a, b) = (ours.node("a"), theirs.node("b"));
    a.knows(&[("b", &b)]);
    eventually("a does not trust b", || a.problem("b").contains("TLS failed"));
    // A client that trusts b, but whose certificate b does not trust.
    let half = secure("c", TlsMaterial { ca: format!("{}{}", ours.pem, theirs.pem), ..ours.issue("c") });
    half.knows(&[("b", &b)]);
    eventually("b does not trust c", || half.problem("b").contains("TLS failed"));
    half.handle.send(&"b".into(), vec![1]).unwrap();
    eventually("both are counted", || b.handle.stats().refused >= 2);
    assert_eq!(b.handle.stats().received_messages, 0);
}

#[test]
fn a_certificate_speaks_for_its_node_only() {
    let ca = Authority::new();
    let (a, c) = (ca.node("a"), ca.node("c"));
    a.knows(&[("b", &c)]);
    eventually("the dialer looks at the name", || {
        a.problem("b").contains("certificate for hotwarm://shop/node/c where hotwarm://shop/node/b was expected")
    });
    // The acceptor looks too: node c says hello as node b.
    let tls = Tls::load(&ca.issue("c"), "shop", &"c".into()).unwrap();
    let name = rustls::pki_types::ServerName::try_from("hotwarm.invalid").unwrap();
    let session = rustls::ClientConnection::new(Arc::clone(&tls.client), name).unwrap();
    let mut liar = rustls::StreamOwned::new(session, TcpStream::connect(a.handle.local_addr()).unwrap());
    liar.write_all(&[frame(Kind::Hello, &hello("b", "a")), frame(Kind::Message, b"lie")].concat()).unwrap();
    let (kind, why) = read_frame(&mut liar).unwrap();
    assert_eq!(kind, Kind::Refused);
    assert!(String::from_utf8(why).unwrap().contains("certificate for hotwarm://shop/node/c"));
    assert_eq!(a.handle.stats().received_messages, 0);
}

#[test]
fn plain_text_is_refused_by_a_secure_node() {
    let ca = Authority::new();
    let (a, b) = (ca.node("a"), Node::plain("b"));
    b.knows(&[("a", &a)]);
    b.handle.send(&"a".into(), vec![1]).unwrap();
    eventually("refused", || a.handle.stats().refused > 0 && !b.problem("a").is_empty());
    assert_eq!(a.handle.stats().received_messages, 0);
}

#[test]
fn material_that_does_not_fit_is_refused_at_start() {
    let (ca, other) = (Authority::new(), Authority::new());
    let good = ca.issue("a");
    let load = |material: &TlsMaterial| Tls::load(material, "shop", &"a".into()).map(|_| ()).unwrap_err().to_string();
    assert!(!Tls::load(&good, "shop", &"a".into()).unwrap().out_of_date);
    assert!(load(&ca.issue("b")).contains("the wrong join file was installed"));
    assert!(load(&ca.issue_until("hotwarm://bank/node/a", 2100)).contains("hotwarm://bank/node/a"));
    assert!(load(&ca.issue_until("https://shop/node/a", 2100)).contains("not issued by hotwarm"));
    assert!(load(&TlsMaterial { ca: other.pem.clone(), ..good.clone() }).contains("not accepted by the cluster's own authority"));
    assert!(load(&TlsMaterial { key: ca.issue("a").key, ..good.clone() }).contains("does not fit together"));
    assert!(load(&TlsMaterial { key: "nonsense".into(), ..good.clone() }).contains("private key that is not PEM"));
    assert!(load(&TlsMaterial { certificate: String::new(), ..good.clone() }).contains("it is empty"));
    assert_eq!(format!("{good:?}"), "TlsMaterial { .. }", "a key is never printed");
}

#[test]
fn an_expired_certificate_is_refused() {
    let ca = Authority::new();
    let (old, b) = (secure("a", ca.issue_until("hotwarm://shop/node/a", 2001)), ca.node("b"));
    old.knows(&[("b", &b)]);
    b.knows(&[("a", &old)]);
    eventually("b refuses it as a client", || old.problem("b").contains("TLS failed"));
    eventually("b refuses it as a server", || b.problem("a").contains("TLS failed"));
    assert!(old.handle.reload_tls(&ca.issue_until("hotwarm://shop/node/a", 2002)).unwrap_err().to_string().contains("expired"));
    old.handle.reload_tls(&ca.issue("a")).unwrap();
    old.handle.send(&"b".into(), vec![1]).unwrap();
    b.handle.send(&"a".into(), vec![2]).unwrap();
    assert_eq!((b.receive().1, old.receive().1), (vec![1], vec![2]), "renewal heals it without a restart");
}

#[test]
fn revocation_ends_standing_connections() {
    let ca = Authority::new();
    let (a, b) = (ca.node("a"), ca.node("b"));
    a.knows(&[("b", &b)]);
    b.knows(&[("a", &a)]);
    a.handle.send(&"b".into(), vec![1]).unwrap();
    b.handle.send(&"a".into(), vec![1]).unwrap();
    assert_eq!((b.receive().1, a.receive().1), (vec![1], vec![1]));
    b.handle.set_revoked([serial(&a).to_uppercase()]);
    eventually("b closes what a dialed", || a.problem("b").contains("is revoked"));
    eventually("b closes what it dialed", || b.problem("a").contains("is revoked"));
    a.handle.send(&"b".into(), vec![2]).unwrap();
    a.handle.reload_tls(&ca.issue("a")).unwrap();
    eventually("a new certificate is let in", || a.lane("b", Lane::Messages).connected && b.lane("a", Lane::Messages).connected);
}

#[test]
fn certificates_are_replaced_under_traffic() {
    let ca = Authority::new();
    let (a, b) = (ca.node("a"), ca.node("b"));
    a.knows(&[("b", &b)]);
    let mut seen = BTreeSet::new();
    let mut number = 0u32;
    eventually("connected", || a.lane("b", Lane::Messages).connected);
    for round in 1..=3 {
        let old = serial(&a);
        a.handle.reload_tls(&ca.issue("a")).unwrap();
        b.handle.reload_tls(&ca.issue("b")).unwrap();
        // Traffic goes on until the connection made with the new certificate has taken over.
        eventually("taken over", || {
            a.handle.send(&"b".into(), number.to_le_bytes().to_vec()).unwrap();
            number += 1;
            seen.extend(b.arrived().map(|(_, bytes)| u32::from_le_bytes(bytes.try_into().unwrap())));
            a.lane("b", Lane::Messages).connects > round
        });
        b.handle.set_revoked([old]);
    }
    while seen.len() < number as usize {
        seen.insert(u32::from_le_bytes(b.receive().1.try_into().unwrap()));
    }
    assert_eq!(seen.last(), Some(&(number - 1)), "every message arrived");
    assert_eq!(a.lane("b", Lane::Messages).uncertain, 0);
    assert_eq!(a.problem("b"), "");
}

/// Who dials a node and does not let it in says why: it is that node's log in which somebody looks.
#[test]
fn a_node_with_a_revoked_certificate_is_told_so_and_tells_it_of_itself() {
    let ca = Authority::new();
    let (a, b) = (ca.node("a"), ca.node("b"));
    assert!(!a.handle.tell_if_revoked());
    a.handle.set_revoked([serial(&a)]);
    assert!(a.handle.tell_if_revoked());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let material = ca.issue("c");
    let tls = Tls::load(&material, "shop", &"c".into()).unwrap();
    b.handle.set_revoked([tls.own.serial.clone()]);
    b.handle.set_peers(&BTreeMap::from([("c".into(), listener.local_addr().unwrap())])).unwrap();
    let session = rustls::ServerConnection::new(Arc::clone(&tls.server)).unwrap();
    let mut accepted = rustls::StreamOwned::new(session, listener.accept().unwrap().0);
    let (kind, why) = read_frame(&mut accepted).unwrap();
    assert_eq!(kind, Kind::Refused);
    let why = String::from_utf8(why).unwrap();
    assert!(why.contains(&tls.own.serial) && why.contains("is revoked") && why.contains("hotwarm certs renew"), "{why}");
    assert!(!why.contains("removed"), "it may only have been renewed: {why}");
}
