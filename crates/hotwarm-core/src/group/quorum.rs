//! R + W > N: how many members must report before one is chosen, so that every acknowledged write is among them.
//!
//! N members other than the hot one may acknowledge, each write waits for W of them; any R reports overlap each acknowledgement when
//! R + W > N. The old hot member itself has everything it acknowledged: its own report is enough.

/// The least number of reports, of members other than the old hot one.
#[must_use]
pub const fn reports_needed(others: u16, acks: u16) -> u16 {
    if acks == 0 || others == 0 {
        // Nothing is promised about data that hotwarm does not keep: one report lets the best known be chosen.
        return if others == 0 { 0 } else { 1 };
    }
    let acks = if acks > others { others } else { acks };
    others - acks + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_reports_overlap_any_acknowledgement() {
        for others in 1..=6u16 {
            for acks in 1..=others {
                let reports = reports_needed(others, acks);
                assert!(reports + acks > others, "N={others} W={acks}");
                assert!(reports + acks == others + 1, "no more than needed: N={others} W={acks}");
            }
        }
        assert_eq!(reports_needed(2, 0), 1);
        assert_eq!(reports_needed(0, 1), 0);
        assert_eq!(reports_needed(2, 9), 1);
    }
}
