//! Rows written by a reference encoder, cut anywhere, must come out whole, with their keys.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// What came out: a part's bytes and, for a row, its key (`None` is NULL) and line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Head(Vec<u8>),
    Row { bytes: Vec<u8>, key: Option<Vec<u8>>, line: u64, height: u64 },
    Broken(Vec<u8>),
    Tail(Vec<u8>),
}

fn split(
    format: &CopyFormat,
    columns: u16,
    key: u16,
    data: &[u8],
    cuts: &[usize],
) -> (Vec<Out>, Option<SplitError>) {
    let mut splitter = CopySplitter::new(format, key, columns);
    let mut out = Vec::new();
    let mut take = |piece: Piece<'_>| {
        out.push(match piece {
            Piece::Head { bytes, .. } => Out::Head(bytes.to_vec()),
            Piece::Tail(bytes) => Out::Tail(bytes.to_vec()),
            Piece::Row(Row { bytes, key: Key::Unreadable, .. }) => Out::Broken(bytes.to_vec()),
            Piece::Row(row) => Out::Row {
                bytes: row.bytes.to_vec(),
                key: match row.key {
                    Key::Text(text) => Some(text.into_owned()),
                    Key::Binary(bytes) => Some(bytes.to_vec()),
                    Key::Null | Key::Unreadable | Key::Foreign => None,
                },
                line: row.line,
                height: row.height,
            },
        });
        Ok::<(), SplitError>(())
    };
    let mut from = 0;
    let mut cuts = cuts.iter().cycle();
    while from < data.len() {
        let size = cuts.next().copied().unwrap_or(data.len()).max(1);
        let to = (from + size).min(data.len());
        if let Err(error) = splitter.feed(&data[from..to], &mut take) {
            return (out, Some(error));
        }
        from = to;
    }
    let error = splitter.finish(&mut take).err();
    (out, error)
}

fn text() -> CopyFormat {
    CopyFormat::Text { delimiter: b'\t', null: (*b"\\N").into(), header: false }
}

fn csv(quote: u8, escape: u8) -> CopyFormat {
    CopyFormat::Csv {
        delimiter: b',',
        quote,
        escape,
        null: Box::default(),
        header: false,
        force_not_null_key: false,
        force_null_key: false,
    }
}

type Value = Option<Vec<u8>>;

fn encode_text(row: &[Value], line_end: &[u8], out: &mut Vec<u8>) {
    for (number, value) in row.iter().enumerate() {
        if number > 0 {
            out.push(b'\t');
        }
        match value {
            None => out.extend_from_slice(b"\\N"),
            Some(value) => {
                for (at, byte) in value.iter().enumerate() {
                    match byte {
                        b'\\' => out.extend_from_slice(b"\\\\"),
                        b'\t' => out.extend_from_slice(b"\\t"),
                        b'\n' => out.extend_from_slice(b"\\n"),
                        b'\r' => out.extend_from_slice(b"\\015"),
                        // Every spelling must be understood.
                        b'a'..=b'c' if at % 2 == 0 => {
                            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
                        }
                        b'd' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
                        other => out.push(*other),
                    }
                }
            }
        }
    }
    out.extend_from_slice(line_end);
}

fn encode_csv(row: &[Value], quote: u8, escape: u8, line_end: &[u8], out: &mut Vec<u8>) {
    for (number, value) in row.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        let Some(value) = value else { continue };
        out.push(quote);
        for byte in value {
            if *byte == quote || *byte == escape {
                out.push(escape);
            }
            out.push(*byte);
        }
        out.push(quote);
    }
    out.extend_from_slice(line_end);
}

fn encode_binary(row: &[Value], out: &mut Vec<u8>) {
    out.extend_from_slice(&(row.len() as u16).to_be_bytes());
    for value in row {
        match value {
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(value) => {
                out.extend_from_slice(&(value.len() as i32).to_be_bytes());
                out.extend_from_slice(value);
            }
        }
    }
}

fn binary_head(extension: &[u8]) -> Vec<u8> {
    let mut head = b"PGCOPY\n\xff\r\n\0\0\0\0\0".to_vec();
    head.extend_from_slice(&(extension.len() as i32).to_be_bytes());
    head.extend_from_slice(extension);
    head
}

/// Bytes that matter to some format, and some that do not.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(b'\n'),
        Just(b'\r'),
        Just(b'\\'),
        Just(b'.'),
        Just(b'"'),
        Just(b','),
        Just(b'\t'),
        Just(b'N'),
        Just(0xffu8),
        b'a'..=b'e',
        b'0'..=b'9'
    ];
    vec(byte, 0..12)
}

fn rows() -> impl Strategy<Value = (Vec<Vec<Value>>, usize)> {
    (1usize..5).prop_flat_map(|columns| {
        (vec(vec(option::weighted(0.8, value()), columns), 0..12), 0..columns)
    })
}

fn line_ends() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![Just(&b"\n"[..]), Just(&b"\r\n"[..]), Just(&b"\r"[..])]
}

/// Every row with the bytes and key that it was written with.
fn check(
    format: &CopyFormat,
    encoded: &[Vec<u8>],
    rows: &[Vec<Value>],
    key: usize,
    data: &[u8],
    cuts: &[usize],
) -> Result<(), TestCaseError> {
    let columns = rows.first().map_or(0, Vec::len) as u16;
    let (out, error) = split(format, columns, key as u16, data, cuts);
    prop_assert_eq!(error, None);
    let found: Vec<_> = out
        .into_iter()
        .filter_map(|out| match out {
            Out::Row { bytes, key, .. } => Some((bytes, key)),
            Out::Head(_) | Out::Tail(_) => None,
            Out::Broken(bytes) => Some((bytes, Some(b"broken".to_vec()))),
        })
        .collect();
    let wanted: Vec<_> =
        encoded.iter().cloned().zip(rows.iter().map(|row| row[key].clone())).collect();
    prop_assert_eq!(found, wanted);
    Ok(())
}

proptest! {
    #[test]
    fn text_rows_come_out_whole(
        (rows, key) in rows(), line_end in line_ends(), cuts in vec(1usize..9, 1..9), marker: bool
    ) {
        let encoded: Vec<Vec<u8>> = rows.iter().map(|row| {
            let mut out = Vec::new();
            encode_text(row, line_end, &mut out);
            out
        }).collect();
        let mut data = encoded.concat();
        if marker {
            data.extend_from_slice(b"\\.");
            data.extend_from_slice(if line_end == b"\r" { b"\r" } else { line_end });
            data.extend_from_slice(b"what follows\tis\nnot read");
        }
        check(&text(), &encoded, &rows, key, &data, &cuts)?;
    }

    #[test]
    fn csv_rows_come_out_whole(
        (rows, key) in rows(), line_end in line_ends(), cuts in vec(1usize..9, 1..9),
        signs in prop_oneof![Just((b'"', b'"')), Just((b'"', b'\\')), Just((b'\'', b'\'')), Just((b'"', b'e'))]
    ) {
        let (quote, escape) = signs;
        let encoded: Vec<Vec<u8>> = rows.iter().map(|row| {
            let mut out = Vec::new();
            encode_csv(row, quote, escape, line_end, &mut out);
            out
        }).collect();
        check(&csv(quote, escape), &encoded, &rows, key, &encoded.concat(), &cuts)?;
    }

    #[test]
    fn binary_rows_come_out_whole(
        (rows, key) in rows(), extension in vec(any::<u8>(), 0..9), cuts in vec(1usize..9, 1..9)
    ) {
        let encoded: Vec<Vec<u8>> = rows.iter().map(|row| {
            let mut out = Vec::new();
            encode_binary(row, &mut out);
            out
        }).collect();
        let mut data = binary_head(&extension);
        data.extend(encoded.concat());
        data.extend_from_slice(&[0xff, 0xff]);
        check(&CopyFormat::Binary, &encoded, &rows, key, &data, &cuts)?;
        let columns = rows.first().map_or(0, Vec::len) as u16;
        let (out, _) = split(&CopyFormat::Binary, columns, 0, &data, &cuts);
        prop_assert_eq!(&out[0], &Out::Head(binary_head(&extension)));
        prop_assert_eq!(out.last(), Some(&Out::Tail(vec![0xff, 0xff])));
    }

    #[test]
    fn any_bytes_are_split_alike_however_they_are_cut(
        data in vec(prop_oneof![
            Just(b'\n'), Just(b'\r'), Just(b'\\'), Just(b'.'), Just(b'"'), Just(b','), Just(b'\t'), any::<u8>()
        ], 0..60),
        cuts in vec(1usize..9, 1..9)
    ) {
        for format in [text(), csv(b'"', b'"'), csv(b'"', b'\\'), csv(b'\\', b'"'), CopyFormat::Binary] {
            let whole = split(&format, 2, 1, &data, &[data.len()]);
            prop_assert_eq!(split(&format, 2, 1, &data, &cuts), whole);
            let mut headed = binary_head(b"");
            headed.extend_from_slice(&data);
            let whole = split(&format, 2, 1, &headed, &[headed.len()]);
            prop_assert_eq!(split(&format, 2, 1, &headed, &cuts), whole);
        }
    }

    #[test]
    fn a_shards_line_is_found_in_the_clients_data(
        steps in vec((1u64..400, 1u64..400), 1..200), header in 0u64..3
    ) {
        let mut map = LineMap::after_header(header);
        let (mut shard, mut client) = (header, 0);
        let mut wanted = Vec::new();
        for (height, gap) in steps {
            shard += height;
            client += gap;
            map.push(height, client);
            wanted.push((shard, client));
        }
        for (shard, client) in wanted {
            prop_assert_eq!(map.client_line(shard), Some(client));
        }
        prop_assert_eq!(map.client_line(shard + 1), None);
    }
}

fn keys(format: &CopyFormat, data: &[u8]) -> Vec<Option<Vec<u8>>> {
    let (out, error) = split(format, 2, 1, data, &[3]);
    assert_eq!(error, None);
    out.into_iter()
        .map(|out| match out {
            Out::Row { key, .. } => key,
            other => panic!("{other:?} is no row"),
        })
        .collect()
}

#[test]
fn quotes_decide_what_is_null_in_csv() {
    let some = |text: &str| Some(text.as_bytes().to_vec());
    let data = b"a,\nb,\"\"\nc,x\"y\"z\n";
    assert_eq!(keys(&csv(b'"', b'"'), data), [None, some(""), some("xyz")]);
    let forced = |not_null, null| match csv(b'"', b'"') {
        CopyFormat::Csv { delimiter, quote, escape, null: marker, header, .. } => CopyFormat::Csv {
            delimiter,
            quote,
            escape,
            null: marker,
            header,
            force_not_null_key: not_null,
            force_null_key: null,
        },
        other => other,
    };
    assert_eq!(keys(&forced(true, false), data), [some(""), some(""), some("xyz")]);
    assert_eq!(keys(&forced(false, true), data), [None, None, some("xyz")]);
    // Both: what is not quoted is kept, what is quoted becomes NULL, as in PostgreSQL.
    assert_eq!(keys(&forced(true, true), data), [some(""), None, some("xyz")]);
}

#[test]
fn a_header_line_is_no_row() {
    let format = CopyFormat::Text { delimiter: b'\t', null: (*b"\\N").into(), header: true };
    let (out, error) = split(&format, 2, 1, b"a\tb\n1\t2\n", &[1]);
    assert_eq!(error, None);
    let row = Out::Row { bytes: b"1\t2\n".to_vec(), key: Some(b"2".to_vec()), line: 2, height: 1 };
    assert_eq!(out, [Out::Head(b"a\tb\n".to_vec()), row]);
}

#[test]
fn lines_within_quotes_are_counted() {
    let (out, _) = split(&csv(b'"', b'"'), 2, 1, b"1,2\n\"x\ny\nz\",3\n4,5\n", &[1]);
    let lines: Vec<_> = out
        .iter()
        .map(|out| match out {
            Out::Row { line, height, .. } => (*line, *height),
            other => panic!("{other:?} is no row"),
        })
        .collect();
    assert_eq!(lines, [(1, 1), (4, 3), (5, 1)]);
}

#[test]
fn line_ends_may_not_change() {
    for (format, data, fault) in [
        (text(), &b"1\t2\n3\t4\r\n"[..], Fault::Return { csv: false }),
        (text(), b"1\t2\r\n3\t4\n", Fault::Newline { csv: false }),
        (text(), b"1\t2\r3\t4\n", Fault::Newline { csv: false }),
        (csv(b'"', b'"'), b"1,2\n3,4\r\n", Fault::Return { csv: true }),
        (csv(b'"', b'"'), b"1,2\r\n3,4\n", Fault::Newline { csv: true }),
        (text(), b"1\t2\n\\.\r\n", Fault::MarkerStyle),
        (text(), b"1\t2\n\\.x\n", Fault::MarkerCorrupt),
        (text(), b"1\t2\n\\.", Fault::MarkerCorrupt),
    ] {
        let (out, error) = split(&format, 2, 1, data, &[1]);
        assert_eq!(error, Some(SplitError { line: 2, fault }), "{data:?}");
        assert_eq!(out.len(), 1, "{data:?}");
    }
}

#[test]
fn what_is_not_well_formed_is_left_to_postgresql() {
    let broken = |format: &CopyFormat, data: &[u8]| {
        let (out, error) = split(format, 2, 1, data, &[1]);
        assert_eq!(error, None, "{data:?}");
        match out.last() {
            Some(Out::Broken(bytes)) => bytes.clone(),
            other => panic!("{other:?} for {data:?}"),
        }
    };
    assert_eq!(broken(&text(), b"1\t2\nonly\n"), b"only\n");
    assert_eq!(broken(&csv(b'"', b'"'), b"1,\"2\n3,4"), b"1,\"2\n3,4");
    assert_eq!(broken(&CopyFormat::Binary, b"PGCOPY"), b"PGCOPY");
    assert_eq!(broken(&CopyFormat::Binary, &[b'x'; 19]), [b'x'; 19]);
    let after = |more: &[u8]| broken(&CopyFormat::Binary, &[&binary_head(b"")[..], more].concat());
    assert_eq!(after(&[0, 3]), [0, 3]);
    assert_eq!(after(&[0, 2, 0, 0]), [0, 2, 0, 0]);
    assert_eq!(after(&[0, 2, 0xff, 0xff, 0xff, 0xfe]), [0, 2, 0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(after(&[0xff, 0xff, 7, 8]), [7]);
}

#[test]
fn a_row_has_a_longest_length() {
    let mut splitter = CopySplitter::new(&csv(b'"', b'"'), 0, 1);
    splitter.row_max = 8;
    let mut take = |_: Piece<'_>| Ok::<(), SplitError>(());
    assert_eq!(splitter.feed(b"1,2\n\"345", &mut take), Ok(()));
    let error = SplitError { line: 2, fault: Fault::RowTooLong };
    assert_eq!(splitter.feed(b"67890", &mut take), Err(error));
}
