//! Arguments as `--key value` pairs: all that programs started by a script need.
//!
//! Main path: [`Args::parse`], then [`Args::get`].

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::Context;

pub(crate) struct Args(BTreeMap<String, String>);

impl Args {
    /// # Errors
    /// A word that is no key, or a key without a value.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut pairs = BTreeMap::new();
        while let Some(word) = words.next() {
            let key = word.strip_prefix("--").with_context(|| format!("{word:?} is no --key"))?;
            pairs.insert(key.to_owned(), words.next().with_context(|| format!("no value after {word}"))?);
        }
        Ok(Self(pairs))
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// It is not there or not readable.
    pub(crate) fn need<T: FromStr>(&self, key: &str) -> anyhow::Result<T> {
        self.optional(key)?.with_context(|| format!("--{key} not given"))
    }

    /// The value of a key, or what stands for it.
    ///
    /// # Errors
    /// It is not readable.
    pub(crate) fn get<T: FromStr>(&self, key: &str, otherwise: T) -> anyhow::Result<T> {
        Ok(self.optional(key)?.unwrap_or(otherwise))
    }

    fn optional<T: FromStr>(&self, key: &str) -> anyhow::Result<Option<T>> {
        let Some(text) = self.0.get(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| anyhow::anyhow!("--{key} {text:?} is not readable"))
    }
}
