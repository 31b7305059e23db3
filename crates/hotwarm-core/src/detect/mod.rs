//! Detection as arithmetic: arrivals and probe results go in with their moment, a grade of suspicion comes out. Detectors only
//! testify; the group decides.
