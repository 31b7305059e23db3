//! Choosing one of several targets: least requests of two random choices, round robin, consistent hashing with bounded load.
