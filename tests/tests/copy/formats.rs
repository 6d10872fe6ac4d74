//! What PostgreSQL reads and what it refuses, in its three formats.

use crate::twins::{Twins, lines};
use crate::wire::Protocol;

#[test]
fn text_is_copied_as_plain_postgresql_does() {
    let mut t = Twins::new("copy_text", "k int PRIMARY KEY, v text, n int CHECK (n < 1000)");
    let copied = t.compare("FROM STDIN", &lines(0..200, "#\tvalue #\t#\n"));
    assert_eq!(copied.tag(), "COPY 200");
    for (options, data) in [
        ("FROM STDIN", &b""[..]),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t\\N"),
        ("FROM STDIN", b"1\ta\\tb\\nc\\\\\\x41\\101\\q\t1\r\n2\t\\N\t2\r\n"),
        ("FROM STDIN", b"1\ta\t1\r2\tb\\\rc\t2\r"),
        ("FROM STDIN", b"1\ta\\\nb\t1\n\\62\tx\t2\n\\x33\ty\t3\n 4 \tz\t4\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\n\\.\nnot read\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\\.\nnot read\n"),
        ("FROM STDIN DELIMITER '|' NULL 'nix'", b"1|nix|1\n2|a\\|b|nix\n"),
        ("(v, k) FROM STDIN WITH (DELIMITER ';')", b"a;1\nb;2\n"),
        ("FROM STDIN (HEADER)", b"what\never\n1\ta\t1\n2\tb\t2\n3\tb\t3\n"),
        ("FROM STDIN (HEADER MATCH)", b"k\tv\tn\n1\ta\t1\n2\tb\t2\n3\tb\t3\n"),
        ("FROM STDIN WHERE n > 100", &lines(0..200, "#\tx\t#\n")),
        // What PostgreSQL refuses.
        ("FROM STDIN (HEADER MATCH)", b"k\tw\tn\n1\ta\t1\n2\tb\t2\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\tmore\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\tno number\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\nno number\tb\t2\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n99999999999\tb\t2\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n\\N\tb\t2\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\r\n2\tb\t2\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\r\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\n\\.\r\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\n\\.x\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\xff\t2\n"),
        ("FROM STDIN", b"1\ta\t1\n2\t\\0\t2\n"),
        ("FROM STDIN", &[&lines(0..60, "#\tx\t#\n")[..], b"60\tx\t1000\n61\tx\t61\n"].concat()),
        ("FROM STDIN", &[&lines(0..60, "#\tx\t#\n")[..], b"17\tx\t17\n61\tx\t61\n"].concat()),
        ("FROM STDIN (DELIMITER 'ab')", b""),
        ("FROM STDIN (FORMAT xml)", b""),
        ("FROM STDIN (nothing 1)", b""),
        ("FROM STDIN (HEADER maybe)", b""),
        ("FROM STDIN (FORMAT csv, FORMAT text)", b""),
        ("(k, nothing) FROM STDIN", b""),
        ("(v, nothing) FROM STDIN", b""),
    ] {
        t.compare(options, data);
    }
}

#[test]
fn csv_is_copied_as_plain_postgresql_does() {
    let mut t = Twins::new("copy_csv", "k text, v text, n int");
    let copied = t.compare("FROM STDIN CSV HEADER", &lines(0..201, "key #,\"a \"\"#\"\"\nb\",#\n"));
    assert_eq!(copied.tag(), "COPY 200");
    for (options, data) in [
        ("FROM STDIN CSV", &b"a,b,1\n\"\",,\n\"x,y\",\"z\r\n\",2\n"[..]),
        ("FROM STDIN CSV", b"a,b,1\r\nb,\"c\r\nd\",2\r\n"),
        ("FROM STDIN CSV", b"a,b,1\rb,\"c\nd\",2\r"),
        ("FROM STDIN CSV", b"pre\"fix\"post,b,1\n\\.,b,2\n\\.\nnot read"),
        ("FROM STDIN CSV DELIMITER AS ';' QUOTE '''' ESCAPE '\\'", b"'a\\'b';c;1\n'\\\\';d;2\n"),
        ("FROM STDIN (FORMAT csv, NULL 'nix', FORCE_NOT_NULL (k))", b"nix,nix,1\n\"nix\",b,2\n"),
        ("FROM STDIN (FORMAT csv, HEADER match)", b"k,v,n\na,b,1\nb,c,2\n"),
        ("FROM STDIN (FORMAT csv, HEADER false)", b"k,v,1\na,b,2\n"),
        ("FROM STDIN (FORMAT csv, HEADER)", b"k,v,n"),
        ("FROM STDIN WITH CSV HEADER FORCE NOT NULL k", b"k,v,n\na,b,1\nb,c,2\n,c,2\n"),
        ("FROM STDIN (FORMAT csv, HEADER match)", b"k,w,n\na,b,1\n"),
        ("FROM STDIN CSV", b"a,b,1\nb,\"c,2\nd,e,3\n"),
        ("FROM STDIN CSV", b"a,b,1\nb,c,2\r\n"),
        ("FROM STDIN CSV", b"a,b,1\r\nb,c,2\n"),
        ("FROM STDIN CSV", b"a,b,1\nb\nc,d,3\n"),
        ("FROM STDIN CSV", b"a,b,1\nb,\"c\nd\",x\nc,d,3\n"),
        ("FROM STDIN CSV", &[&lines(0..50, "#,\"x\ny\",1\n")[..], b"x,\"\n\n\",z\n"].concat()),
        ("FROM STDIN CSV", b"a,b,1\nb,c,2\n\\.\r\n"),
    ] {
        t.compare(options, data);
    }
    // PostgreSQL would take a NULL where the column allows it; a distributed table does not.
    let data = b"a,b,1\n\"\",c,2\n";
    let sql = "COPY copy_csv FROM STDIN (FORMAT csv, FORCE_NULL (k))";
    let refused = t.router.copy_in(sql, data, 1, Protocol::Simple);
    assert_eq!(refused.sqlstate(), "23502");
    assert_eq!(refused.context(), "COPY copy_csv, line 2");
    assert_eq!(t.rows()[1].len(), 0);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn data_that_is_mostly_wrong_is_read_as_plain_postgresql_reads_it() {
    let mut t = Twins::new("copy_noise", "v text, k text NOT NULL");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut messages = std::collections::BTreeSet::new();
    let pieces = [
        "a", "b\u{e9}", "\t", ",", "\n", "\n", "\r\n", "\r", "\"", "\"", "\\", "\\.", "\\N",
        "\\x41", "1",
    ];
    for options in [
        "FROM STDIN",
        "FROM STDIN CSV",
        "FROM STDIN CSV HEADER QUOTE '\"' ESCAPE '\\'",
        "FROM STDIN (HEADER, DELIMITER ',', NULL 'a')",
    ] {
        for _ in 0..40 {
            // Mostly one kind of line end, and rows that are whole more often than not.
            let line_end = ["\n", "\r\n", "\r"][dice.below(3)];
            let delimiter = if options == "FROM STDIN" { "\t" } else { "," };
            let mut data = String::new();
            for _ in 0..dice.below(6) {
                let field = pieces[dice.below(pieces.len())];
                let quoted = dice.below(2) == 0 && delimiter == ",";
                let field = if quoted { format!("\"{field}x\"") } else { field.to_owned() };
                data.push_str(&format!("v{delimiter}{field}{line_end}"));
            }
            for _ in 0..dice.below(3) {
                data.push_str(pieces[dice.below(pieces.len())]);
            }
            messages.insert(t.compare(options, data.as_bytes()).message().to_owned());
        }
    }
    // The data is wrong in many ways, and sometimes right.
    assert!(messages.contains("") && messages.len() > 6, "{messages:?}");
}

#[test]
fn binary_is_copied_as_plain_postgresql_does() {
    let mut t = Twins::new("copy_binary", "k bigint PRIMARY KEY, v text, n int");
    let source = "COPY (SELECT g - 100::bigint, nullif(g::text, '7'), g FROM generate_series(1, 300) g) \
                  TO STDOUT (FORMAT binary)";
    let data = t.plain.copy_out(source, Protocol::Simple).copied();
    let copied = t.compare("FROM STDIN (FORMAT binary)", &data);
    assert_eq!(copied.tag(), "COPY 300");
    assert_eq!(copied.response.as_deref().map(|response| response[0]), Some(1));
    let mut wrong = data.clone();
    wrong[3] = b'x';
    let mut flagged = data.clone();
    flagged[12] = 1;
    let mut extended = data.clone();
    extended[18] = 5;
    extended.splice(19..19, *b"hello");
    let head = &data[..19];
    let row = |fields: &[&[u8]]| {
        let mut row = (fields.len() as u16).to_be_bytes().to_vec();
        for field in fields {
            row.extend_from_slice(&(field.len() as i32).to_be_bytes());
            row.extend_from_slice(field);
        }
        row
    };
    let (key, four) = (&[0, 0, 0, 0, 0, 0, 0, 5][..], &[0, 0, 0, 5][..]);
    for data in [
        extended,
        data[..data.len() - 2].to_vec(),
        data[..data.len() - 20].to_vec(),
        [&data[..], b"more"].concat(),
        wrong,
        flagged,
        Vec::new(),
        data[..10].to_vec(),
        [head, &row(&[key, b"v", four]), &row(&[key, b"v"])].concat(),
        [head, &row(&[key, b"v", four]), &row(&[four, b"v", four])].concat(),
        [head, &row(&[key, b"v", four]), &row(&[key, b"v", key])].concat(),
        [head, &row(&[key, b"v", four]), &[0, 3, 0xff, 0xff, 0xff, 0xff], &[0; 8]].concat(),
        [head, &row(&[key, b"v", four]), &[0, 3, 0xff, 0xff, 0xff, 0xfe]].concat(),
    ] {
        t.compare("FROM STDIN BINARY", &data);
    }
}
