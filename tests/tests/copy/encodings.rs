//! Data in other encodings than UTF-8.

use crate::twins::Twins;
use crate::wire::{Protocol, Wire};

const SINGLE: [&str; 25] = [
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "KOI8R",
    "KOI8U",
    "WIN866",
    "WIN874",
    "WIN1250",
    "WIN1251",
    "WIN1252",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1256",
];

/// Those that have tables and many unknown bytes, and those of long characters, which look like
/// ASCII in part.
const LONG: [&str; 11] = [
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "SJIS",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
];

/// Functions that tell what PostgreSQL can convert.
const KNOWS: &str = "CREATE OR REPLACE FUNCTION byte_of(b int, e text) RETURNS text LANGUAGE plpgsql \
    AS $$ BEGIN RETURN convert_from(set_byte('\\x00', 0, b), e); \
    EXCEPTION WHEN others THEN RETURN NULL; END $$; \
    CREATE OR REPLACE FUNCTION has(c text, e text) RETURNS bool LANGUAGE plpgsql \
    AS $$ BEGIN RETURN convert_from(convert_to(c, e), e) = c; \
    EXCEPTION WHEN others THEN RETURN false; END $$";

fn lines_of(wire: &mut Wire, query: &str) -> Vec<String> {
    let copied = wire.copy_out(&format!("COPY ({query}) TO STDOUT"), Protocol::Simple).copied();
    String::from_utf8(copied).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn each_byte_is_the_character_that_postgresql_says() {
    let mut t = Twins::new("copy_bytes", "k text, v text");
    assert_eq!(t.plain.query(KNOWS).error, None);
    for encoding in SINGLE.iter().chain(&["WIN1257", "WIN1258"]) {
        let known = format!(
            "SELECT b, byte_of(b, '{encoding}') FROM generate_series(128, 255) b \
             WHERE byte_of(b, '{encoding}') IS NOT NULL"
        );
        let known = lines_of(&mut t.plain, &known);
        let mut data = Vec::new();
        for line in &known {
            let (byte, _) = line.split_once('\t').expect("two columns");
            let byte: u8 = byte.parse().expect("a byte");
            // NULL is written in UTF-8.
            data.extend_from_slice(&[byte, b'\t', byte, byte, b'\n']);
        }
        let options = format!("FROM STDIN (ENCODING '{encoding}')");
        let copied = t.compare(&options, &data);
        assert_eq!(copied.tag(), format!("COPY {}", known.len()), "{encoding}");
        let sql = format!("COPY copy_bytes {options}");
        for wire in [&mut t.plain, &mut t.router] {
            wire.copy_in(&sql, &data, 100, Protocol::Simple);
        }
        for line in &known {
            let (byte, char) = line.split_once('\t').expect("two columns");
            // Of the key's shard alone.
            let found =
                lines_of(&mut t.router, &format!("SELECT v FROM copy_bytes WHERE k = '{char}'"));
            assert_eq!(found, [char.repeat(2)], "{byte} in {encoding}");
        }
        for query in
            ["copy_bytes", "(SELECT v, k, NULL FROM copy_bytes ORDER BY k COLLATE \"C\", v)"]
        {
            for options in ["", ", NULL 'é'", ", FORMAT csv, HEADER"] {
                let sql = format!("COPY {query} TO STDOUT (ENCODING '{encoding}'{options})");
                let [mut wanted, mut found] =
                    [&mut t.plain, &mut t.router].map(|wire| wire.copy_out(&sql, Protocol::Simple));
                if query == "copy_bytes" {
                    wanted.data.sort();
                    found.data.sort();
                }
                assert_eq!((found.data, found.error), (wanted.data, wanted.error), "{sql}");
            }
        }
        for wire in [&mut t.plain, &mut t.router] {
            wire.query("INSERT INTO copy_bytes VALUES ('far', '語')");
        }
        let sql = format!(
            "COPY (SELECT v FROM copy_bytes ORDER BY k COLLATE \"C\") TO STDOUT ENCODING '{encoding}'"
        );
        let [wanted, found] =
            [&mut t.plain, &mut t.router].map(|wire| wire.copy_out(&sql, Protocol::Extended));
        assert_eq!(found.message(), wanted.message(), "{sql}");
        assert_eq!(found.sqlstate(), wanted.sqlstate(), "{sql}");
        assert_ne!(found.sqlstate(), "", "{sql}");
        for wire in [&mut t.plain, &mut t.router] {
            wire.query("TRUNCATE copy_bytes");
        }
    }
    for (options, data) in [
        ("FROM STDIN (ENCODING 'latin-9', NULL '€')", &b"a\t\xa4\n\xe9\tb\n"[..]),
        ("FROM STDIN (ENCODING 'WIN1252')", b"a\tb\n\x80\tc\nd\t\x81\ne\tf\n"),
        ("FROM STDIN (ENCODING 'WIN1252')", b"a\tb\n\x81\tc\ne\tf\n"),
        ("FROM STDIN (ENCODING 'LATIN1')", b"\\303\\251\t\xe9\n\\351\tb\n"),
        ("FROM STDIN (ENCODING 'LATIN1')", b"\\\xe9\t\\\xe9\r\n\xe8\tb\r\n"),
        (
            "FROM STDIN ENCODING 'koi8r' CSV HEADER",
            b"k,v\n\"\xc1\n\xc1\",\xc2\n\xc1,\"\xc1\"\"\"\n",
        ),
        ("FROM STDIN (ENCODING 'SQL_ASCII')", b"\xc3\xa9\tb\n\xe9\tc\n"),
        ("FROM STDIN (ENCODING 'unicode')", b"\xc3\xa9\tb\n"),
        ("FROM STDIN (ENCODING 'nothing')", b""),
        ("FROM STDIN (ENCODING 7)", b""),
        ("FROM STDIN (ENCODING 'MULE_INTERNAL')", b"a\tb\n"),
    ] {
        t.compare(options, data);
    }
    let head = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let row = b"\0\x02\0\0\0\x02\xc3\xa9\0\0\0\x01v\xff\xff";
    t.compare("FROM STDIN (FORMAT binary, ENCODING 'LATIN1')", &[&head[..], row].concat());
}

#[test]
fn what_looks_like_ascii_in_a_longer_character_ends_nothing() {
    let mut t = Twins::new("copy_long", "k text, v text");
    assert_eq!(t.plain.query(KNOWS).error, None);
    for encoding in LONG {
        let known = format!(
            "SELECT string_agg(chr(c), '') FROM unnest(ARRAY(SELECT generate_series(12353, 12540)) || \
             ARRAY(SELECT generate_series(19968, 40000, 11)) || \
             ARRAY(SELECT generate_series(44032, 55200, 17))) c WHERE has(chr(c), '{encoding}')"
        );
        let known = lines_of(&mut t.plain, &known).concat();
        assert!(known.chars().count() > 300, "{encoding}");
        let chars: Vec<String> = known.chars().map(String::from).collect();
        for (options, delimiter) in
            [("", '|'), (", FORMAT csv", '|'), (", FORMAT csv, QUOTE '\\', ESCAPE '~'", '}')]
        {
            let rows = chars.chunks(3).enumerate();
            let rows: Vec<String> = rows
                .map(|(at, part)| format!("('key {at}', '{}\\')", part.join("|\\}~")))
                .collect();
            let source = format!(
                "COPY (SELECT * FROM (VALUES {}) AS rows) TO STDOUT (ENCODING '{encoding}', \
                 DELIMITER '{delimiter}'{options})",
                rows.join(", ")
            );
            let data = t.plain.copy_out(&source, Protocol::Simple);
            assert_eq!(data.error, None, "{source}");
            let options = format!("(ENCODING '{encoding}', DELIMITER '{delimiter}'{options})");
            let copied = t.compare(&format!("FROM STDIN {options}"), &data.copied());
            assert_eq!(copied.tag(), format!("COPY {}", rows.len()), "{encoding}");
            let sql = format!("COPY copy_long FROM STDIN {options}");
            t.router.copy_in(&sql, &data.copied(), 100, Protocol::Simple);
            let key = "SELECT count(*) FROM copy_long WHERE k = 'key 7'";
            assert_eq!(lines_of(&mut t.router, key), ["1"], "{sql}");
            let sql = format!("COPY copy_long TO STDOUT {options}");
            let mut found = t.router.copy_out(&sql, Protocol::Simple).data;
            found.sort();
            let mut wanted = data.data;
            wanted.sort();
            assert_eq!(found, wanted, "{sql}");
            t.router.query("TRUNCATE copy_long");
        }
    }
    let sql = "COPY copy_long FROM STDIN (ENCODING 'SJIS')";
    let refused = t.router.copy_in(sql, b"a\t\x83\x5c\n\x83\x5c\tb\n", 5, Protocol::Simple);
    assert_eq!(refused.sqlstate(), "0A000");
    assert_eq!(refused.context(), "COPY copy_long, line 2");
    let sql = "COPY copy_long FROM STDIN (ENCODING 'SHIFT_JIS_2004')";
    let refused = t.router.copy_in(sql, b"a\tb\n", 5, Protocol::Simple);
    assert_eq!(refused.sqlstate(), "0A000");
    assert_eq!(t.rows()[1].len(), 0);
}
