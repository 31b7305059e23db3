//! The join file: all that makes a machine a node, in one PEM text of mode 0600.
//!
//! Blocks in this order: HOTWARM JOIN (who, and the configuration), the CA's certificate, the node's certificate, the node's key, and for one
//! node the right to bootstrap once (S11). Read strictly: what is missing, left over, or does not belong together is refused.

use std::fmt;
use std::time::SystemTime;

use hotwarm_core::ids::NodeId;
use rcgen::KeyPair;

use super::{Ca, Error, Issued, belongs, encode, identity, random, signed_by};
use crate::config;

const VERSION: &str = "1";
const BYTES_MAX: usize = 4 << 20;

/// The right to bring the cluster into being, usable once (S11): whoever holds it may bootstrap.
#[derive(Clone, PartialEq, Eq)]
pub struct Bootstrap(String);

impl Bootstrap {
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new() -> Result<Self, Error> {
        let bytes: [u8; 16] = random()?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// 32 hexadecimal digits: what is kept in `DATA/bootstrap` until it is used.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bootstrap(..)")
    }
}

/// Everything in a join file.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinFile {
    pub cluster: String,
    pub node: NodeId,
    /// The configuration's text.
    pub config: String,
    /// The CA's certificate, PEM.
    pub ca: String,
    pub issued: Issued,
    pub bootstrap: Option<Bootstrap>,
}

impl fmt::Debug for JoinFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinFile").field("cluster", &self.cluster).field("node", &self.node).finish_non_exhaustive()
    }
}

impl JoinFile {
    /// A new certificate for `node` and all that it needs beside it.
    ///
    /// # Errors
    /// As [`Ca::issue`].
    pub fn issue(ca: &Ca, node: &NodeId, config: &str, bootstrap: Option<Bootstrap>, now: SystemTime) -> Result<Self, Error> {
        Ok(Self {
            cluster: ca.cluster().to_owned(),
            node: node.clone(),
            config: config.to_owned(),
            ca: ca.certificate().to_owned(),
            issued: ca.issue(node, now)?,
            bootstrap,
        })
    }

    /// The file's text.
    ///
    /// # Errors
    /// If a name cannot be a PEM header; names that `check` accepts can.
    pub fn to_pem(&self) -> Result<String, Error> {
        let mut head = pem::Pem::new("HOTWARM JOIN", self.config.as_bytes());
        let bootstrap = if self.bootstrap.is_some() { "once" } else { "no" };
        for (key, value) in [("Version", VERSION), ("Cluster", &self.cluster), ("Node", self.node.as_str()), ("Bootstrap", bootstrap)] {
            head.headers_mut().add(key, value).map_err(|error| Error::Join(error.to_string()))?;
        }
        let mut text = format!("# Holds the private key of node {}: keep it secret, delete it after `hotwarm join`.\n", self.node);
        text.push_str(&encode(&head));
        for part in [&self.ca, &self.issued.certificate, &self.issued.key] {
            text.push_str(part);
        }
        if let Some(Bootstrap(right)) = &self.bootstrap {
            text.push_str(&encode(&pem::Pem::new("HOTWARM BOOTSTRAP", right.as_bytes())));
        }
        Ok(text)
    }

    /// Reads and verifies what [`JoinFile::to_pem`] wrote: names, signature, key and validity at `now`.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn from_pem(text: &str, now: SystemTime) -> Result<Self, Error> {
        let wrong = |what: String| Error::Join(what);
        if text.len() > BYTES_MAX {
            return Err(wrong(format!("it has more than {BYTES_MAX} bytes")));
        }
        let blocks = pem::parse_many(text).map_err(|error| wrong(format!("its text is damaged ({error}); copy it again")))?;
        let tags: Vec<&str> = blocks.iter().map(pem::Pem::tag).collect();
        let bootstrap = match tags.as_slice() {
            ["HOTWARM JOIN", "CERTIFICATE", "CERTIFICATE", "PRIVATE KEY"] => None,
            ["HOTWARM JOIN", "CERTIFICATE", "CERTIFICATE", "PRIVATE KEY", "HOTWARM BOOTSTRAP"] => Some(right(&blocks[4])?),
            [] => return Err(wrong("it holds no PEM block; give it a .join file that `hotwarm init` wrote".into())),
            _ => return Err(wrong(format!("it holds {}; copy it again, or write it anew", tags.join(", ")))),
        };
        let (cluster, node, may_bootstrap) = head(&blocks[0])?;
        if text.matches("-----BEGIN ").count() != blocks.len() || may_bootstrap != bootstrap.is_some() {
            return Err(wrong("it was cut short; copy it again".into()));
        }
        let config = String::from_utf8(blocks[0].contents().to_vec()).map_err(|_| wrong("its configuration is not UTF-8".into()))?;
        let file = Self {
            cluster,
            node,
            config,
            ca: encode(&blocks[1]),
            issued: Issued { certificate: encode(&blocks[2]), key: encode(&blocks[3]) },
            bootstrap,
        };
        file.verify(now)?;
        Ok(file)
    }

    fn verify(&self, now: SystemTime) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Join(what));
        let (ca, own) = (identity(&self.ca)?, identity(&self.issued.certificate)?);
        if ca.node.is_some() || ca.cluster != self.cluster {
            return wrong(format!("its CA is not that of cluster {}", self.cluster));
        }
        if own.cluster != self.cluster || own.node.as_ref() != Some(&self.node) {
            return wrong(format!("its certificate is not for node {} of cluster {}", self.node, self.cluster));
        }
        if !signed_by(&self.issued.certificate, &self.ca)? {
            return wrong("its certificate was not signed by its CA".into());
        }
        let key = KeyPair::from_pem(&self.issued.key).map_err(|_| Error::Join("its key cannot be read".into()))?;
        if !belongs(&key, &self.issued.certificate)? {
            return wrong("its key is not the certificate's".into());
        }
        for (who, identity) in [("CA", &ca), ("certificate", &own)] {
            if let Err(why) = identity.valid_at(now) {
                return wrong(format!("its {who} is not valid: {why}; write it anew with `hotwarm certs renew`"));
            }
        }
        match config::parse(&self.config, "the join file's configuration", Some(&self.node)) {
            Err(errors) => wrong(format!("its configuration is wrong\n{errors}")),
            Ok(config) if config.cluster.name != self.cluster => {
                wrong(format!("its configuration is of cluster {}, not {}", config.cluster.name, self.cluster))
            }
            Ok(_) => Ok(()),
        }
    }
}

fn head(block: &pem::Pem) -> Result<(String, NodeId, bool), Error> {
    let headers: Vec<(&str, &str)> = block.headers().iter().collect();
    match headers.as_slice() {
        [("Version", VERSION), ("Cluster", cluster), ("Node", node), ("Bootstrap", right @ ("once" | "no"))] => {
            Ok(((*cluster).to_owned(), NodeId::new(node), *right == "once"))
        }
        [("Version", version), ..] if *version != VERSION => {
            Err(Error::Join(format!("it is of version {version}, this program reads version {VERSION}; use the program that wrote it")))
        }
        _ => Err(Error::Join("its first block does not say version, cluster, node and bootstrap".into())),
    }
}

fn right(block: &pem::Pem) -> Result<Bootstrap, Error> {
    let text = std::str::from_utf8(block.contents()).unwrap_or_default();
    if text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(Bootstrap(text.to_owned()))
    } else {
        Err(Error::Join("its right to bootstrap is damaged".into()))
    }
}
