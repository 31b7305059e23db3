//! Several nodes on one desk.
