//! Whatever a peer sends: refused or taken, never a panic (S16).
