//! The Windows program under Wine. The tests show Wine's behaviour; a real Windows may differ. `cargo xtask
//! systems` builds the program, and `--run` runs these tests; so does `cargo xtask test --full`.

mod caller_identity;
mod operator;
mod proxy;
mod stores;
mod wine;
