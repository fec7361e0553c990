//! The page and the templates name every setting and say nothing that a load would refuse; and the
//! canonical text of a value means that value.

use ph_config::reference::{markdown, template};
use ph_config::{Format, SETTINGS, Schema, Settings};
use toml_edit::DocumentMut;

use crate::Site;

/// Takes away `mark` where it stands directly before a key.
fn uncommented(text: &str, mark: char) -> String {
    let is_key = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase());
    let lines = text.lines().map(|line| line.strip_prefix(mark).filter(is_key).unwrap_or(line));
    lines.map(|line| format!("{line}\n")).collect()
}

fn keys(before: &Settings, after: &Settings) -> Vec<String> {
    before.diff(after).into_iter().map(|change| change.key).collect()
}

#[test]
fn the_templates_load_and_their_comments_are_the_defaults() {
    for (file, format, mark) in [("app.ini", Format::Ini, ';'), ("app.toml", Format::Toml, '#')] {
        let text = template(format);
        let site = Site::named(file, &text);
        let live = site.good();
        assert_eq!((live.settings.name(), live.warnings.as_slice()), ("web", [].as_slice()));
        let empty = site.file(file, "[web]\n");
        let set = keys(&empty.good().settings, &live.settings);
        assert_eq!(set, ["number_workers", "command"], "{file}");
        let all = empty.file(file, uncommented(&text, mark)).good();
        assert_eq!((keys(&live.settings, &all.settings), all.warnings), (vec![], vec![]));
        let default = |name| all.settings.origin(name) == ph_config::Origin::Default;
        assert!(!SETTINGS.iter().any(|row| default(row.name)), "every setting was uncommented");
    }
}

#[test]
fn the_toml_template_has_every_setting_with_its_type() {
    let text = template(Format::Toml);
    let parse = |text: &str| text.parse::<DocumentMut>().unwrap_or_else(|e| panic!("{e}"));
    let live = parse(&text);
    let web = live["web"].as_table().expect("[web] is a table");
    assert_eq!(web.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["command", "number_workers"]);
    let all = parse(&uncommented(&text, '#'));
    let defaults = all["DEFAULT"].as_table().expect("[DEFAULT] is a table");
    assert_eq!(defaults.len(), SETTINGS.len());
    for row in SETTINGS {
        let value = defaults[row.name].as_value().expect("it is a value");
        let text = match (value.as_str(), value.as_array(), value.as_inline_table()) {
            (Some(text), None, None) => text.to_owned(),
            (None, Some(list), None) if list.is_empty() => String::new(),
            (None, None, Some(map)) if map.is_empty() => String::new(),
            _ => value.to_string().trim().replace("0o", ""),
        };
        assert_eq!(text, row.default, "{}", row.name);
    }
}

#[test]
fn every_setting_is_on_the_page_and_in_the_templates() {
    let (page, ini, toml) = (markdown(), template(Format::Ini), template(Format::Toml));
    for row in SETTINGS {
        let cells = page.lines().filter(|line| line.starts_with(&format!("| `{}` |", row.name)));
        assert_eq!(cells.count(), 1, "{}", row.name);
        let line = |mark: &str| format!("\n{mark}{} =", row.name);
        assert!(ini.contains(&line(";")) && toml.contains(&line("#")), "{}", row.name);
        if let Schema::Choice { words, .. } = row.schema {
            assert!(words.iter().all(|word| row.kind.contains(word)), "{}", row.name);
        }
    }
    for text in [&page, &ini, &toml] {
        assert!(!text.contains("{late_keys}"));
    }
    for line in ini.lines().chain(toml.lines()).filter(|line| line.starts_with("# ")) {
        assert!(line.chars().count() <= 98, "{line}");
    }
}

/// Texts of which at least one is a value of every kind with this schema.
fn samples(schema: &Schema) -> Vec<String> {
    let texts: &[&str] = match schema {
        Schema::Boolean => &["on", "0"],
        Schema::Integer { least, most, word } => {
            let numbers = [least.to_string(), most.to_string(), "7".to_owned()];
            return numbers.into_iter().chain(word.map(str::to_uppercase)).collect();
        }
        Schema::Octal { .. } => &["7", "0027"],
        Schema::Duration { .. } => &["0", "1.5", "90s", "0.0015", "2m", "36h"],
        Schema::SwitchOrDuration => &["on", "OFF", "0", "75", "2m"],
        Schema::Size => &["1536", "64k"],
        Schema::Share => &["3", "100%"],
        Schema::Name => &["a.b-c_D"],
        // There is no other section that this one could name.
        Schema::Section => &[""],
        Schema::Identity => &["www-data", "33", "www-data:adm"],
        Schema::Path => &["./x//y", "/srv/x%y"],
        Schema::Address => &[":80", "[::1]:80", "unix:run/a b.sock"],
        Schema::Readiness => &["Notify", "tcp:a:1", "http://[::1]:80/", "exec:sh -c 'a b'"],
        Schema::Choice { words, aliases } => {
            return words.iter().chain(*aliases).map(|word| word.to_lowercase()).collect();
        }
        Schema::Limit(part) => {
            let pair = |text: String| format!("{text}:UNLIMITED");
            return samples(part).into_iter().flat_map(|it| [it.clone(), pair(it)]).collect();
        }
        Schema::List { of, word } => {
            let all = samples(of).join("\n");
            // No such files are there, which env_file only forgives with a dash.
            let optional = format!("-{}", samples(of).join(", -"));
            let words = word.map(str::to_uppercase).into_iter().chain(samples(of));
            return [all, optional].into_iter().chain(words).collect();
        }
        Schema::Map => &["A=' b, \"c\"',B=%(slot)s;d\nC="],
        // Only what a worker executes can name its slot.
        Schema::Command => &["sh -c 'echo \"100%%\" %(slot)s' a\\ b", "sh -c '\"100%%\"' a\\ b"],
    };
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn the_canonical_text_of_a_setting_means_the_same_value() {
    // `include` cannot be set once the files are read; `include.rs` has its tests.
    for row in SETTINGS.iter().filter(|row| row.name != "include") {
        let mut good = 0;
        // Not every number is within the bounds of every kind, nor fits beside the defaults.
        for text in samples(&row.schema) {
            let escaped = if row.schema == Schema::Command { text } else { escape(&text) };
            let Ok(first) = Site::new("[s]").set(row.name, &escaped).load() else { continue };
            good += 1;
            let text = first.settings.text(row.name).expect("it is a setting");
            let again = Site::new("[s]").set(row.name, &escape(&text)).good().settings;
            assert_eq!(again.text(row.name).as_ref(), Some(&text), "{}", row.name);
            let changes = first.settings.diff(&again);
            assert!(changes.iter().all(|it| it.key != row.name), "{}: {changes:?}", row.name);
        }
        assert!(good > 0, "no sample of {} is good", row.name);
        if let Schema::Choice { words, aliases } = row.schema {
            assert_eq!(good, words.len() + aliases.len(), "{}", row.name);
        }
    }
}

/// Percent signs doubled, late-bound names kept.
fn escape(text: &str) -> String {
    text.replace('%', "%%").replace("%%(slot)s", "%(slot)s")
}

#[test]
fn texts_are_values_and_not_sources() {
    let text = "[web]\napp_Rate = 5%%\ncommand = date +%%F '%(slot)s'\nrlimit_nofile = 64 : infinity\n\
                reload_surge = 25%\nuser = www:7\nrlimit_core = 1048576\numask = 7\n\
                environment = A='a, b', C=%(app_rate)s\ncpu_affinity = 3,1,2,9\n";
    let site = Site::new(text);
    let settings = site.good().settings;
    let pidfile = site.path("web.pid");
    for (key, expected) in [
        ("app_rate", "5%"),
        ("APP_Rate", "5%"),
        ("command", "date '+%F' '%(slot)s'"),
        ("rlimit_nofile", "64:unlimited"),
        ("rlimit_core", "1MB"),
        ("reload_surge", "25%"),
        ("user", "www:7"),
        ("umask", "007"),
        ("environment", "A=\"a, b\", C=5%"),
        ("cpu_affinity", "1-3, 9"),
        ("pidfile", pidfile.to_str().expect("UTF-8")),
        ("boot_timeout", "1m"),
        ("timeout", ""),
        ("single_instance", "true"),
        ("log_file", "-"),
    ] {
        assert_eq!(settings.text(key).as_deref(), Some(expected), "{key}");
    }
    for none in ["app_none", "app_", "no_such_key", ""] {
        assert_eq!(settings.text(none), None, "{none}");
    }
}
