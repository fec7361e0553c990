//! Values that refer to one another, a line each.
#![no_main]

#[path = "../../tests/it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|text: &str| properties::interpolation(text));
