//! Any edit of any text, in both languages.
#![no_main]

#[path = "../../tests/it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|text: &str| {
    properties::edit(ph_config::Format::Ini, text);
    properties::edit(ph_config::Format::Toml, text);
});
