//! `rtlive`, the program.

fn main() {}
