//! The least a command worker can be: it stamps the clock on entry, then waits for a signal.
//!
//! It has no Rust runtime before `main`, whose work (it reads its own memory map) would cost as much
//! as all the rest and hide in every figure what the master costs. Naming the C entry point is an
//! unsafe attribute, though nothing here is unsafe: the second exception to rule 11.

#![no_main]

use std::ffi::c_int;

use xtask::{Stamp, open_stamps};

#[expect(unsafe_code, reason = "the one way to have no runtime before `main`")]
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let stamp = Stamp::now();
    let stamped = open_stamps().and_then(|pipe| stamp.write(&pipe));
    if stamped.is_err() {
        return 1;
    }
    loop {
        nix::unistd::pause();
    }
}
