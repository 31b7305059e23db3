//! Which fault struck in which stage of a failover: the table that shows what was never tried.

use std::collections::BTreeMap;

use crate::fault::{Kind, Stage};

/// How often each fault struck in each stage.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<(Kind, Stage), u64>);

impl Coverage {
    pub fn count(&mut self, kind: Kind, stage: Stage) {
        *self.0.entry((kind, stage)).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    #[must_use]
    pub fn get(&self, kind: Kind, stage: Stage) -> u64 {
        self.0.get(&(kind, stage)).copied().unwrap_or(0)
    }

    /// Cells that stayed empty.
    #[must_use]
    pub fn empty(&self) -> Vec<(Kind, Stage)> {
        let all = Kind::ALL.iter().flat_map(|kind| Stage::ALL.iter().map(|stage| (*kind, *stage)));
        all.filter(|(kind, stage)| self.get(*kind, *stage) == 0).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<34}", "fault \\ stage of the failover")?;
        for stage in Stage::ALL {
            write!(f, "{:>10}", stage.text())?;
        }
        for kind in Kind::ALL {
            write!(f, "\n{:<34}", kind.text())?;
            for stage in Stage::ALL {
                write!(f, "{:>10}", self.get(*kind, *stage))?;
            }
        }
        Ok(())
    }
}
