//! Accounts in a real directory: Samba as a domain controller, whose own tools and MIT Kerberos take what is made here.
//!
//! `RAMET_TEST_DC` names a file that says where the domain controller is; `cargo xtask test` starts one. The tests run side
//! by side, each with names of its own, and leave no account behind.

mod accounts;
mod connections;
mod credentials;
mod dc;
mod provisioning;
