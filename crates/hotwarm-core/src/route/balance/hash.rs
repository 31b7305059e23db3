//! Rendezvous hashing: each key ranks all targets, so a target that leaves takes only its own keys with it.
//!
//! Every router of every node must rank alike: nothing here may depend on order, process or machine. Not for secrets; who may choose
//! keys can aim at one target, and the bound on load is what limits that. The main path: [`hash_key`] once per request, [`score`] per target.
//! Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; weights as in Mosharaf et al., "Weighted
//! rendezvous hashing" (the largest of -weight / ln(u)).

/// A stable 64-bit hash of a key (a header's value, a client's address).
#[must_use]
pub fn hash_key(bytes: &[u8]) -> u64 {
    // FNV-1a, then a finalizer, since its high bits mix poorly.
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The rank of the target called `name` (hashed) for `key`, for targets of equal weight: the highest is first.
pub(super) const fn rank(key: u64, name: u64) -> u64 {
    mix(key ^ name.rotate_left(32))
}

/// The same order for targets of different `weight`s: a target wins a share of keys in proportion to its weight.
pub(super) fn score(rank: u64, weight: f64) -> f64 {
    // 52 bits and a half: strictly between 0 and 1.
    let unit = ((rank >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    -weight / unit.ln()
}

const fn mix(bits: u64) -> u64 {
    let z = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_frozen() {
        // Routers of two versions must agree where a key belongs.
        assert_eq!(hash_key(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash_key(b"alice"), 0xc5d1_556d_6677_4a5c);
        assert_eq!(rank(1, 2), 0xc72c_0d73_624b_3f8e);
    }

    #[test]
    fn equal_weights_keep_the_order_of_ranks() {
        let ranks: Vec<u64> = (0..1000).map(|k| rank(k, 99)).collect();
        for pair in ranks.windows(2) {
            assert_eq!(pair[0] < pair[1], score(pair[0], 3.0) < score(pair[1], 3.0));
        }
        assert!(score(u64::MAX, 1.0).is_finite() && score(0, 1.0) > 0.0);
    }
}
