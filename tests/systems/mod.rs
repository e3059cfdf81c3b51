//! The Windows program, under Wine: a real program of that system on a system that is not it. What Wine answers is
//! what is seen; what a real Windows answers beyond that is not. `cargo xtask systems` makes the program, and
//! `--run` runs these tests; so does `cargo xtask test --full`.

mod callers;
mod person;
mod proxy;
mod stores;
mod wine;
