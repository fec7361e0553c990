//! Any text as the value of each setting: the first byte chooses which.
#![no_main]

#[path = "../../tests/it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| properties::value(input.0.into(), input.1));
