//! For each key type: spellings that must be read, and odd ones that must at least not be misread.

use pgherd_shard_map::KeyType;
use proptest::prelude::*;

pub(crate) struct Case {
    pub(crate) key_type: KeyType,
    /// A part of function names.
    pub(crate) name: &'static str,
    pub(crate) sql_type: &'static str,
    /// The type's binary output function.
    pub(crate) send: &'static str,
    /// Texts of the type, plainly written; a few may be out of range.
    pub(crate) valid: BoxedStrategy<String>,
    /// Characters that damage these.
    pub(crate) alphabet: &'static str,
    pub(crate) odd: &'static [&'static str],
}

impl Case {
    pub(crate) fn collatable(&self) -> bool {
        matches!(self.key_type, KeyType::Text | KeyType::Varchar | KeyType::Bpchar)
    }
}

/// A valid text with one to three characters put in, taken out or changed.
pub(crate) fn damaged(case: &Case) -> impl Strategy<Value = String> + use<> {
    let alphabet: Vec<char> = case.alphabet.chars().collect();
    let edit = (any::<prop::sample::Index>(), prop::sample::select(alphabet), 0..3_u8);
    (case.valid.clone(), prop::collection::vec(edit, 1..=3)).prop_map(|(text, edits)| {
        let mut text: Vec<char> = text.chars().collect();
        for (at, character, kind) in edits {
            let at = at.index(text.len() + 1);
            match kind {
                0 => text.insert(at, character),
                1 if at < text.len() => drop(text.remove(at)),
                _ if at < text.len() => text[at] = character,
                _ => text.push(character),
            }
        }
        text.into_iter().collect()
    })
}

/// Blanks, sign and leading zeros around a number.
fn number(digits: impl Strategy<Value = i64> + 'static) -> BoxedStrategy<String> {
    ("[ \t\n]{0,2}", "0{0,2}", digits, "[ \r]{0,2}", any::<bool>())
        .prop_map(|(before, zeros, value, after, plus)| {
            let sign = if value < 0 { "-" } else { ["", "+"][usize::from(plus)] };
            format!("{before}{sign}{zeros}{}{after}", value.unsigned_abs())
        })
        .boxed()
}

fn day() -> BoxedStrategy<String> {
    let year = prop_oneof![4 => 1900..2100_i32, 2 => 1..9999_i32, 1 => 10_000..294_275_i32];
    (year, 1..=12_u8, 1..=31_u8, 0..4_u8)
        .prop_map(|(year, month, day, form)| match form {
            0 if year < 10_000 => format!("{year:04}{month:02}{day:02}"),
            1 => format!("{year:04}-{month}-{day}"),
            _ => format!("{year:04}-{month:02}-{day:02}"),
        })
        .boxed()
}

fn time() -> BoxedStrategy<String> {
    (0..24_u8, 0..60_u8, 0..60_u8, "[0-9]{1,6}", 0..4_u8)
        .prop_map(|(hour, minute, second, fraction, form)| match form {
            0 => format!("{hour}:{minute:02}"),
            1 => format!("{hour:02}:{minute:02}:{second:02}"),
            _ => format!("{hour:02}:{minute:02}:{second:02}.{fraction}"),
        })
        .boxed()
}

fn zone() -> BoxedStrategy<String> {
    prop_oneof![
        Just("Z".to_owned()),
        Just("z".to_owned()),
        (" {0,1}", "[+-]", 0..=15_u8, 0..60_u8, 0..60_u8, 0..4_u8).prop_map(
            |(blank, sign, hour, minute, second, form)| match form {
                0 => format!("{blank}{sign}{hour:02}"),
                1 => format!("{blank}{sign}{hour:02}{minute:02}"),
                2 => format!("{blank}{sign}{hour:02}:{minute:02}"),
                _ => format!("{blank}{sign}{hour:02}:{minute:02}:{second:02}"),
            }
        ),
    ]
    .boxed()
}

fn moment(zone: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let era = prop_oneof![8 => Just(""), 1 => Just(" BC"), 1 => Just(" AD")];
    let plain = (day(), "[Tt ]", time(), zone, era).prop_map(|(day, between, time, zone, era)| {
        // PostgreSQL has no timestamps before 4714 BC.
        let era =
            if day.starts_with(['0', '1', '2', '3']) && !day.contains("00000") { era } else { "" };
        format!("{day}{between}{time}{zone}{era}")
    });
    prop_oneof![20 => plain, 1 => infinity()].boxed()
}

fn infinity() -> BoxedStrategy<String> {
    prop::sample::select(vec!["infinity", "-infinity", " Infinity ", "-INFINITY"])
        .prop_map(str::to_owned)
        .boxed()
}

fn numeric() -> BoxedStrategy<String> {
    prop_oneof![
        4 => "[ ]?[+-]?[0-9]{1,30}(\\.[0-9]{0,20})?([eE][+-]?[0-9]{1,2})?[ ]?",
        2 => "-?[0-9]{0,3}\\.[0-9]{1,9}0{0,4}",
        2 => "-?[0-9]{1,3}0{0,12}(\\.0{1,9})?",
        1 => "-?0\\.0{1,20}[0-9]{1,3}",
        1 => "[0-9]{1,4}e-?[0-9]{3}",
        1 => prop::sample::select(vec!["NaN", "nan", "inf", "-Infinity", "+inf", "-0", "0.00"])
            .prop_map(str::to_owned),
    ]
    .boxed()
}

fn inet() -> BoxedStrategy<String> {
    let bits = |most: u8| {
        prop_oneof![Just(String::new()), (0..=most).prop_map(|bits| format!("/{bits}")),]
    };
    prop_oneof![
        (any::<std::net::Ipv4Addr>(), bits(32)).prop_map(|(at, bits)| format!("{at}{bits}")),
        (any::<std::net::Ipv6Addr>(), bits(128)).prop_map(|(at, bits)| format!("{at}{bits}")),
        (any::<[u16; 2]>(), bits(128)).prop_map(|([a, b], bits)| format!("{a:X}::{b:04x}{bits}")),
        any::<std::net::Ipv4Addr>().prop_map(|at| format!("::FFFF:{at}")),
    ]
    .boxed()
}

fn bytea() -> BoxedStrategy<String> {
    let hex = prop::collection::vec((any::<u8>(), " {0,1}"), 0..40).prop_map(|bytes| {
        let pairs = bytes.iter().map(|(byte, blank)| format!("{blank}{byte:02x}"));
        format!("\\x{}", pairs.collect::<String>())
    });
    prop_oneof![hex, "([a-zA-Z ]|\\\\\\\\|\\\\[0-3][0-7][0-7]|é|😀){0,30}"].boxed()
}

fn uuid() -> BoxedStrategy<String> {
    (any::<u128>(), 0..4_u8)
        .prop_map(|(value, form)| {
            let plain = format!("{value:032x}");
            let usual = |text: &str| {
                let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
                parts.join("-")
            };
            match form {
                0 => plain,
                1 => format!("{{{}}}", usual(&plain).to_uppercase()),
                2 => plain
                    .as_bytes()
                    .chunks(4)
                    .map(String::from_utf8_lossy)
                    .collect::<Vec<_>>()
                    .join("-"),
                _ => usual(&plain),
            }
        })
        .boxed()
}

fn words(list: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(list).prop_map(str::to_owned).boxed()
}

const DATE_ODDITIES: &[&str] = &[
    "",
    " ",
    "abc",
    "-",
    "now",
    "today",
    "epoch",
    "2024",
    "202401",
    "240102",
    "2024-060",
    "2024.060",
    "2024-1-2",
    "1/2/2024",
    "01-02-03",
    "99-01-02",
    "Jan 2 2024",
    "2024-Jan-02",
    "02-Jan-2024",
    "2024-02-30",
    "2023-02-29",
    "1900-02-29",
    "2000-02-29",
    "0000-01-01",
    "0001-01-01",
    "0001-01-01 BC",
    "4714-11-24 BC",
    "4714-11-23 BC",
    "4713-01-01 BC",
    "5874897-12-31",
    "5874898-01-01",
    "294276-12-31",
    "294277-01-01",
    "J2451187",
    "+infinity",
    "inf",
    "2024-01-02 BC AD",
    "2024-01-02BC",
    "2024-01-02 bc",
    "2024-01-02T",
    "2024-01-02 ",
    "20240102T",
    "2024-01-02 03:04:05",
    "2024-01-02T03:04:05Z",
    "2024-01-02 24:00:00",
    "2024-01-02 24:00:01",
    "2024-01-02 23:59:60",
    "2024-01-02 03:04:05.1234567",
    "2024-01-02 03:04:05.",
    "2024-01-02 03:04.5",
    "2024-01-02 030405",
    "20240102 030405",
    "20240102T030405Z",
    "2024-01-02 03:04:05+16",
    "2024-01-02 03:04:05+15:59",
    "2024-01-02 03:04:05+1",
    "2024-01-02 03:04:05+05:",
    "2024-01-02 03:04:05+530",
    "2024-01-02 03:04:05 UTC",
    "2024-01-02 03:04:05 Europe/Berlin",
    "2024-01-02 03:04:05 EST",
    "2024-01-02 03:04:05 PM",
    "2024-01-02 03:04:05Z BC",
    "2024-01-02 03:04:05Z+1",
    "2024-01-02 03:04:05-00",
    "294276-12-31 23:59:59.999999",
    "294276-12-31 23:59:59.999999Z",
    "294276-12-31 23:30:00-01",
    "294277-01-01 00:30:00+01",
    "4714-11-24 00:00:00 BC",
    "4714-11-24 00:00:00+01 BC",
    "4714-11-23 23:30:00-01 BC",
    "2024-01-02  03:04:05",
    "2024-01-02 Z",
    "2024-01-02+01",
];

#[rustfmt::skip]
pub(crate) fn cases() -> Vec<Case> {
    let case = |key_type, name, sql_type, send, valid, alphabet, odd| {
        Case { key_type, name, sql_type, send, valid, alphabet, odd }
    };
    const DIGITS: &str = "0123456789+-. _xXob";
    const MOMENTS: &str = "0123456789-:. +TZtzBCad/";
    const INTEGERS: &[&str] = &[
        "", " ", "-", "+", "--5", "5 5", "5.0", "1e2", "0x10", "0b1", "0o7", "1_000", "_1", "0_", "-0",
        "32767", "32768", "-32768", "-32769", "2147483647", "2147483648", "-2147483648",
        "9223372036854775807", "9223372036854775808", "-9223372036854775808",
        "-9223372036854775809", "99999999999999999999999", "9999999999999999999_9", "\u{b}7\u{c}",
    ];
    const TEXTS: &[&str] = &["", " ", "a ", " a", "a\t", "a\n ", "é ", "\u{a0}"];
    vec![
        case(KeyType::Int2, "int2", "smallint", "int2send", number(any::<i16>().prop_map(i64::from)), DIGITS, INTEGERS),
        case(KeyType::Int4, "int4", "integer", "int4send", number(any::<i32>().prop_map(i64::from)), DIGITS, INTEGERS),
        case(KeyType::Int8, "int8", "bigint", "int8send", number(any::<i64>()), DIGITS, INTEGERS),
        case(KeyType::Text, "text", "text", "textsend", "\\PC{0,40}".boxed(), "a é", TEXTS),
        case(KeyType::Varchar, "varchar", "varchar", "varcharsend", "\\PC{0,30} {0,2}".boxed(), "a é", TEXTS),
        case(KeyType::Bpchar, "bpchar", "bpchar", "bpcharsend", "\\PC{0,20} {0,4}".boxed(), "a é\t", TEXTS),
        case(KeyType::Uuid, "uuid", "uuid", "uuid_send", uuid(), "0aF-{} g", &["", "{}", "{", "-"]),
        case(KeyType::Date, "date", "date", "date_send", prop_oneof![20 => day(), 1 => infinity()].boxed(), MOMENTS, DATE_ODDITIES),
        case(KeyType::Time, "time", "time", "time_send", time(), MOMENTS, &[
            "", "x", "now", "allballs", "24:00", "24:00:00", "24:00:00.000001", "25:00", "12:60", "12:00:60",
            "12:00:60.5", "12:00:61", "12", "1200", "120000", "12:00 PM", "12:00:00+01", "12:00:00Z", "1:2:3",
            "12:00:00.9999999", "12:00.5", ":12", "12:", "T12:00", " 12:00 ", "2024-01-02 12:00", "12:00:00 BC",
        ]),
        case(KeyType::Timestamp, "timestamp", "timestamp", "timestamp_send",
            moment(prop_oneof![3 => Just(String::new()), 1 => zone()].boxed()), MOMENTS, DATE_ODDITIES),
        case(KeyType::Timestamptz, "timestamptz", "timestamptz", "timestamptz_send", moment(zone()), MOMENTS, DATE_ODDITIES),
        case(KeyType::Numeric, "numeric", "numeric", "numeric_send", numeric(), "0123456789+-.eE _xn", &[
            "", " ", ".", "-", "-.", "e", "e5", "1e", "1e+", "1e+-5", "1 e5", "1e 5", "1.e5", ".5e1", "+-1", "1..2",
            "0x1F", "1_0", "1e1_0", "NaN ", "-NaN", "+NaN", "infinit", "-inf ", "- inf", "1e131071", "1e131072",
            "1e-16383", "1e-16384", "1e9999999999", "1e-9999999999", "0e999999", "1e4999", "\u{b}1\u{c}",
        ]),
        case(KeyType::Bytea, "bytea", "bytea", "byteasend", bytea(), "\\x0aF37 é", &[
            "", "\\", "\\\\", "\\x", "\\X00", "\\x0", "\\x 00", "\\x0 0", "\\x00\t\n", "\\400", "\\377", "\\37", " \\x00", "\\x\u{b}00",
        ]),
        case(KeyType::Bool, "bool", "boolean", "boolsend", words(&[
            "t", "tr", "tru", "true", "TRUE", " y ", "ye", "yes", "on", "1", "f", "fa", "fal", "fals", "false", "n", "no",
            "of", "off", "OFF", "0\n",
        ]), "tfoyn10 esr", &["", " ", "o", "2", "10", "truee", "nof", "\u{b}t\u{c}"]),
        case(KeyType::Inet, "inet", "inet", "inet_send", inet(), "0129.:/afF %", &[
            "", "1", "10/8", "10.1", "10.0.0.0/8", "10.0.0.1/", "10.0.0.1/033", "10.0.0.1/08", "10.0.0.1/33", "010.0.0.1",
            "256.0.0.1", "1.2.3.4.5", "1.2.3.", "::", "::/0", "::1/129", ":::", "1::2::3", "::1.2.3.4", "1:2:3:4:5:6:1.2.3.4",
            "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "fe80::1%eth0", "00001::", " ::1", "0x7f.0.0.1",
            "::ffff:1.2.3.4/96", "::ffff:001.2.3.4", "10.0.0.1/+8", "10.0.0.1/-1", "10.0.0.1/ 8",
        ]),
        case(KeyType::Enum, "mood", "mood", "enum_send", words(&["sad", "OK", "très bien", "a 'b' \\c", " "]), "sad OK", &[]),
    ]
}
