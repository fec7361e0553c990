//! What a line says, by its parts.

use serde_json::{Map, Value};

/// The parts of a line. What is no line of ph has a message alone.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parts {
    pub(super) level: Option<String>,
    pub(super) slot: Option<u32>,
    /// All of them, by the names they have in a log of JSON.
    pub(super) object: Map<String, Value>,
}

impl Parts {
    /// Reads a line, text or JSON.
    pub(super) fn of(line: &str) -> Self {
        let object = match json(line) {
            Some(object) => object,
            None => text(line)
                .unwrap_or_else(|| Map::from_iter([("message".to_owned(), Value::from(line))])),
        };
        let level = object.get("level").and_then(Value::as_str).map(str::to_owned);
        let slot = object.get("slot").and_then(Value::as_u64);
        Self { level, slot: slot.and_then(|slot| u32::try_from(slot).ok()), object }
    }
}

fn json(line: &str) -> Option<Map<String, Value>> {
    // What begins otherwise is no object, and most lines do.
    line.starts_with("{\"").then(|| serde_json::from_str(line).ok()).flatten()
}

/// Reads `TIME LEVEL NAME[PID] ROLE: MESSAGE`, where ROLE is `master`, `worker SLOT gen GENERATION`,
/// perhaps with a stream behind it, or a helper's name.
fn text(line: &str) -> Option<Map<String, Value>> {
    ph_log::stamp(line.as_bytes())?;
    let (time, rest) = line.split_once(' ')?;
    let (level, rest) = rest.split_once(' ')?;
    let (name, pid, rest) = name_and_pid(rest)?;
    // A line of fields alone, or of nothing, has no blank at its end.
    let (role, message) = rest.split_once(": ").or_else(|| Some((rest.strip_suffix(':')?, "")))?;
    let mut object = Map::new();
    let mut add = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
    add("time", time.into());
    add("level", level.into());
    add("name", name.into());
    add("pid", pid.into());
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["worker", slot, "gen", generation, ..] => {
            add("role", "worker".into());
            add("slot", slot.parse::<u32>().ok()?.into());
            add("generation", generation.parse::<u32>().ok()?.into());
            if let Some(stream) = words.get(4) {
                add("stream", (*stream).into());
            }
        }
        _ => add("role", role.into()),
    }
    add("message", message.into());
    Some(object)
}

/// Reads `NAME[PID] `; the name may hold brackets and blanks itself.
fn name_and_pid(text: &str) -> Option<(&str, u32, &str)> {
    text.match_indices("] ").find_map(|(end, _)| {
        let (name, pid) = text[..end].rsplit_once('[')?;
        Some((name, pid.parse().ok()?, &text[end + 2..]))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_of_text_has_its_parts() {
        let head = "2026-11-23T08:00:00.123Z WARN my [a] job[4121] ";
        for (end, expected) in [
            ("master: up: now a=1", json!({"role": "master", "message": "up: now a=1"})),
            ("warden: gone", json!({"role": "warden", "message": "gone"})),
            (
                "worker 3 gen 2: done",
                json!({"role": "worker", "slot": 3, "generation": 2, "message": "done"}),
            ),
            (
                "worker 3 gen 2 stderr: [x] y",
                json!({
                    "role": "worker", "slot": 3, "generation": 2, "stream": "stderr",
                    "message": "[x] y",
                }),
            ),
        ] {
            let parts = Parts::of(&format!("{head}{end}"));
            let mut expected = expected.as_object().expect("an object").clone();
            expected.insert("time".to_owned(), "2026-11-23T08:00:00.123Z".into());
            expected.insert("level".to_owned(), "WARN".into());
            expected.insert("name".to_owned(), "my [a] job".into());
            expected.insert("pid".to_owned(), 4121.into());
            assert_eq!(parts.object, expected);
            assert_eq!(parts.level.as_deref(), Some("WARN"));
        }
    }

    #[test]
    fn a_line_of_json_is_what_it_says() {
        let parts = Parts::of(r#"{"time":"x","level":"INFO","slot":3,"message":"m"}"#);
        assert_eq!((parts.slot, parts.level.as_deref()), (Some(3), Some("INFO")));
    }

    #[test]
    fn whatever_else_is_a_message() {
        for line in ["", "  at main.rs", "{\"half", "{\"a\":1} x", "2026-11-23T08:00:00.123Z odd"] {
            let parts = Parts::of(line);
            assert_eq!(Value::Object(parts.object), json!({"message": line}));
        }
    }
}
