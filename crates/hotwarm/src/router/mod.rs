//! The data path: one listener per group on every node; reads only the routes.
