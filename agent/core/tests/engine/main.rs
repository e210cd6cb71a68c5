//! The engine as its callers see it: events in, records out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clock;
mod derived;
mod functions;
mod joins;
mod kinds;
mod news;
mod order;
mod plan;
mod quality;
mod reference;
mod reload;
mod restart;
mod rules;
mod steps;
mod windows;
