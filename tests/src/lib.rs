//! What the tests of the whole program share: real peers as child processes, the shared data, and patience.
//!
//! A test that cannot run where it is says so loudly and passes; with `RTLIVE_REQUIRE_PEERS=1`, as in CI, it fails instead.

pub mod authority;
pub mod broker;
pub mod data;
pub mod line;
pub mod live;
pub mod meter;
pub mod nats;
pub mod peer;
pub mod program;
pub mod tmpfs;
pub mod usage;
