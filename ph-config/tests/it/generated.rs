//! INI files drawn at random, out of pieces that mean something to a parser.
//!
//! Files of three kinds. *Tidy* ones hold sections and keys as people write them, so that most are
//! accepted and interpolation is reached. *Damaged* ones are tidy with a few pieces put in
//! anywhere. *Wild* ones are pieces alone. Names that only this crate knows (`here`, settings) are
//! not drawn, nor letters whose lower case depends on the version of Unicode.

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

/// What Python's `str.strip` removes besides blanks and line ends.
const SPACES: [&str; 17] = [
    " ", "\t", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\u{85}", "\u{a0}", "\u{1680}",
    "\u{2000}", "\u{2028}", "\u{2029}", "\u{202f}", "\u{205f}", "\u{3000}",
];
/// What looks like white space, or is near to it in a table, and is text.
const NO_SPACES: [&str; 6] = ["\u{200b}", "\u{180e}", "\u{feff}", "\u{2060}", "\u{1b}", "\u{7f}"];

/// Keys of the application, and keys that serve interpolation only. Lower case is not simple for
/// those at the end: a sigma at the end of a word, a dot that becomes a mark of its own.
const KEYS: [&str; 22] = [
    "app_a",
    "app_b",
    "app_c",
    "app_d",
    "app_e f",
    "app_[g]",
    "app_h]",
    "app_%",
    "app_i.j",
    "app_",
    "k1",
    "k2",
    "k3",
    "a key",
    "ключ",
    "straße",
    "app_ΟΔΟΣ",
    "app_Σ.Σ",
    "app_Σ\u{308}",
    "app_İ",
    "app_\u{212a}",
    "app_ẞǄ",
];

const HEADERS: [&str; 14] = [
    "[a]b]",
    "[ s ]",
    "[]]",
    "[s]x",
    "[s] ; c",
    "[s] = 1",
    "[x=y]",
    "[a:b]",
    "[default]",
    "[ DEFAULT]",
    "[[a]]",
    "[%]",
    "[%(k1)s]",
    "[\u{85}]",
];

/// Pieces of every kind, for damage and for wild files.
const PIECES: [&str; 40] = [
    "\n",
    "\n",
    "\n",
    "\r",
    "\r\n",
    "\n ",
    "\n  ",
    "\n\t",
    "\n\n",
    "\n#",
    "\n;",
    "\n ;c\n",
    " ",
    "=",
    ":",
    "==",
    "#",
    ";",
    " ;",
    "[",
    "]",
    "[]",
    "\n[]",
    "\n[a",
    "\n[s]\n",
    "\n[t]\n",
    " [s]",
    "\n[DEFAULT]\n",
    "\n= 1\n",
    "\nalone\n",
    "%",
    "%%",
    "%(",
    ")",
    ")s",
    "%()s",
    "%(k1)",
    "%(k1)d",
    "%(k1)s",
    "s",
];

/// The bytes of one file.
pub(crate) fn file() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![5 => tidy(), 3 => damaged(), 2 => wild()];
    let line_end = prop_oneof![6 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r")];
    let mark = prop::bool::weighted(0.03);
    let broken = prop::option::weighted(0.02, (any::<Index>(), 0x80..=0xffu8));
    (text, line_end, mark, broken).prop_map(|(text, line_end, mark, broken)| {
        let mark = if mark { "\u{feff}" } else { "" };
        let mut bytes = format!("{mark}{}", text.replace('\n', line_end)).into_bytes();
        if let Some((at, byte)) = broken {
            bytes.insert(at.index(bytes.len() + 1), byte);
        }
        bytes
    })
}

fn tidy() -> impl Strategy<Value = String> {
    let head = prop_oneof![8 => Just(String::new()), 1 => comment(), 1 => Just("\n".to_owned())];
    // DEFAULT first, late, or twice; most keys have a plain value there, so that names are found.
    let first = prop::option::weighted(0.6, block("[DEFAULT]".to_owned(), plain(), 10..KEYS.len()));
    let late = prop::option::weighted(0.2, block("[DEFAULT]".to_owned(), value(), 0..2));
    let sections = subsequence(vec!["s", "t", "S", "日志", "odd"], 0..4).prop_flat_map(|names| {
        names
            .into_iter()
            .map(|name| {
                let header = match name {
                    "odd" => select(&HEADERS[..]).prop_map(str::to_owned).boxed(),
                    _ => Just(format!("[{name}]")).boxed(),
                };
                header.prop_flat_map(|header| block(header, value(), 0..8)).boxed()
            })
            .collect::<Vec<_>>()
    });
    let chain = prop::option::weighted(0.2, chain());
    (head, first, sections, chain, late).prop_map(|(head, first, sections, chain, late)| {
        let (first, late) = (first.unwrap_or_default(), late.unwrap_or_default());
        head + &first + &sections.concat() + &chain.unwrap_or_default() + &late
    })
}

/// A header and keys that differ from one another.
fn block(
    header: String,
    value: impl Strategy<Value = String> + Clone + 'static,
    keys: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    let indent = prop_oneof![9 => Just(""), 1 => select(&SPACES[..])];
    let keys = subsequence(KEYS.to_vec(), keys).prop_shuffle();
    let entries = keys.prop_flat_map(move |keys| {
        keys.into_iter().map(|key| entry(key, value.clone()).boxed()).collect::<Vec<_>>()
    });
    (indent, entries, comment(), blanks()).prop_map(move |(indent, entries, comment, blanks)| {
        let lines: String = entries.iter().map(|entry| format!("{indent}{entry}\n")).collect();
        format!("{indent}{header}\n{comment}{lines}{blanks}")
    })
}

fn entry(key: &'static str, value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let around = || prop_oneof![4 => Just(" "), 2 => Just(""), 1 => select(&SPACES[..])];
    (spelled(key), around(), select(vec!["=", ":"]), around(), value)
        .prop_map(|(key, before, divider, after, value)| key + before + divider + after + &value)
}

/// A key as some spell it.
fn spelled(key: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(key.to_owned()),
        // What the upper case of a letter is in lower case again need not be that letter.
        1 => Just(key.chars().flat_map(char::to_uppercase).collect::<String>()),
        1 => Just(key.to_lowercase()),
    ]
}

fn plain() -> impl Strategy<Value = String> + Clone {
    select(vec!["", "1", "a b", "100%%", "日志 ; c", "%%(k1)s", "a\n  b"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> + Clone {
    let word = select(vec![
        "", "1", "a", "/srv", "\"q\"", "é", "日志", "=", ":", "#", " # c", " ; c", ";c", "%%", "]",
    ]);
    let piece = prop_oneof![
        12 => word.prop_map(str::to_owned),
        5 => select(&KEYS[..]).prop_flat_map(spelled).prop_map(|key| format!("%({key})s")),
        2 => select(&SPACES[..]).prop_map(str::to_owned),
        1 => select(&NO_SPACES[..]).prop_map(str::to_owned),
        2 => continuation(),
        1 => "\\PC{0,3}".prop_filter("names only one side knows", |text| !text.contains('%')),
    ];
    let odd = select(vec!["%", "%(", "%()s", "%(k1)", "%(k1)d", "%(no)s", "%%%", "%(a\n b)s"]);
    let pieces = prop::collection::vec(piece, 0..5);
    (pieces, prop::option::weighted(0.03, odd)).prop_map(|(pieces, odd)| match odd {
        Some(odd) => pieces.concat() + odd,
        None => pieces.concat(),
    })
}

/// An indented line, which may look like anything.
fn continuation() -> impl Strategy<Value = String> + Clone {
    let text =
        select(vec!["b", "[t]", "k9 = 1", "# c", ";c", "", "\n  d", "\n\n d", "%(k1)s", ": x"]);
    (select(&SPACES[..]), select(vec!["", " ", "\t"]), text)
        .prop_map(|(space, more, text)| format!("\n{space}{more}{text}"))
}

fn comment() -> impl Strategy<Value = String> {
    select(vec!["", "", "# c\n", "; [x]\n", "  # k1 = 2\n", "\u{3000};\n"]).prop_map(str::to_owned)
}

fn blanks() -> impl Strategy<Value = String> {
    select(vec!["", "", "\n", "\n\n", " \n", "\u{2028}\n"]).prop_map(str::to_owned)
}

/// Values that refer to one another, up to deeper than is legal, or in a circle.
fn chain() -> impl Strategy<Value = String> {
    (1..=12usize, prop::bool::weighted(0.1), any::<bool>()).prop_map(|(depth, circle, defaults)| {
        let mut lines: Vec<String> =
            (1..depth).map(|key| format!("c{key} = <%(C{})s>\n", key + 1)).collect();
        lines.push(format!("c{depth} = {}\n", if circle { "%(c1)s" } else { "end" }));
        let header = if defaults { "[DEFAULT]\n" } else { "" };
        format!("[chain]\napp_x = %(c1)s\n{header}{}", lines.concat())
    })
}

fn damaged() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![4 => select(&PIECES[..]), 1 => select(&SPACES[..]), 1 => select(&KEYS[..])];
    (tidy(), prop::collection::vec((any::<Index>(), piece), 1..4)).prop_map(|(text, damage)| {
        damage.into_iter().fold(text, |mut text, (at, piece)| {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            text.insert_str(at, piece);
            text
        })
    })
}

fn wild() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => select(&PIECES[..]),
        1 => select(&SPACES[..]),
        1 => select(&NO_SPACES[..]),
        2 => select(&KEYS[..]),
        1 => select(&HEADERS[..]),
    ];
    let head = select(vec!["[s]\n", "[s]\napp_a = ", "[DEFAULT]\napp_b = 1\n[s]\n", ""]);
    (head, prop::collection::vec(piece, 0..30))
        .prop_map(|(head, pieces)| head.to_owned() + &pieces.concat())
}
