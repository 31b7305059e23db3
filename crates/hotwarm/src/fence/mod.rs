//! Keeping an old hot member from serving: the guard process, self-fencing, hooks.
