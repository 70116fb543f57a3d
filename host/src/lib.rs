//! Host library of Ramet.
