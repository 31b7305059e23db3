//! Leaving a target out because of what live traffic showed, and never all of them.
