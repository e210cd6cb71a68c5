//! The parts of `rtlive demo`: a simulated device on a real pty, an embedded broker, a cable between agent and broker that can be
//! pulled, and a subscriber that checks what arrives. The agent itself is the real one.

pub mod account;
pub mod broker;
pub mod cable;
pub mod device;
pub mod keys;
pub mod screen;
pub mod subscriber;
