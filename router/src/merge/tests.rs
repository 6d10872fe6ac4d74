use std::cmp::Ordering;

use proptest::prelude::*;

use super::key::{Kind, Rule};
use super::*;

fn rule(kind: Kind, descending: bool, nulls_first: bool) -> Rule {
    Rule { kind, descending, nulls_first }
}

fn key(rule: Rule, value: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    rule.append(value, &mut out).expect("a value of the type");
    out
}

fn order<T>(kind: Kind, a: &T, b: &T, binary: impl Fn(&T) -> Vec<u8>) -> Ordering {
    let rule = rule(kind, false, false);
    key(rule, Some(&binary(a))).cmp(&key(rule, Some(&binary(b))))
}

/// A numeric as `digits × 10000^(weight - …)`, in its binary form.
fn numeric(negative: bool, weight: i16, digits: &[u16]) -> Vec<u8> {
    let sign = if negative { 0x4000 } else { 0 };
    let words = [digits.len() as u16, weight as u16, sign, 0];
    words.iter().chain(digits).flat_map(|word| word.to_be_bytes()).collect()
}

fn interval(time: i64, days: i32, months: i32) -> Vec<u8> {
    [&time.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat()
}

#[test]
fn numbers_that_are_no_numbers_have_their_place() {
    let special = |sign: u16| [[0, 0], [0, 0], sign.to_be_bytes(), [0, 0]].concat();
    let ascending = [
        special(0xf000),
        numeric(true, 1, &[1]),
        numeric(true, 0, &[1, 5000]),
        numeric(true, 0, &[1]),
        numeric(true, -1, &[1]),
        numeric(false, 0, &[]),
        numeric(false, -2, &[9999]),
        numeric(false, -1, &[1]),
        numeric(false, 0, &[1]),
        numeric(false, 0, &[1, 1]),
        numeric(false, 0, &[1, 5000]),
        numeric(false, 0, &[2]),
        numeric(false, 1, &[1]),
        special(0xd000),
        special(0xc000),
    ];
    for (a, b) in ascending.iter().zip(&ascending[1..]) {
        assert_eq!(order(Kind::Numeric, a, b, Vec::clone), Ordering::Less, "{a:?} {b:?}");
    }
    let same = [numeric(false, 0, &[1, 0]), numeric(false, 1, &[0, 1]), numeric(false, 0, &[1])];
    assert!(same.iter().all(|one| order(Kind::Numeric, one, &same[0], Vec::clone).is_eq()));
    let floats = [f64::NEG_INFINITY, -1.5, -0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN];
    for (a, b) in floats.iter().zip(&floats[1..]) {
        let binary = |number: &f64| number.to_be_bytes().to_vec();
        assert_eq!(order(Kind::Float, a, b, binary), Ordering::Less, "{a} {b}");
    }
    let zeros = order(Kind::Float, &0.0_f64, &-0.0, |number| number.to_be_bytes().to_vec());
    assert_eq!(zeros, Ordering::Equal);
}

#[test]
fn networks_sort_before_their_hosts() {
    let inet = |bits: u8, address: [u8; 4]| [&[2, bits, 0, 4][..], &address].concat();
    let ascending = [
        inet(8, [10, 0, 0, 0]),
        inet(8, [10, 1, 2, 3]),
        inet(16, [10, 0, 0, 0]),
        inet(32, [10, 0, 0, 0]),
        inet(16, [10, 1, 0, 0]),
        inet(32, [10, 1, 0, 0]),
        inet(0, [192, 0, 0, 1]),
    ];
    // /0 comes first: it shares no bit with the others, and has the shortest network.
    assert_eq!(order(Kind::Inet, &ascending[6], &ascending[0], Vec::clone), Ordering::Less);
    for (a, b) in ascending[..6].iter().zip(&ascending[1..6]) {
        assert_eq!(order(Kind::Inet, a, b, Vec::clone), Ordering::Less, "{a:?} {b:?}");
    }
}

#[test]
fn a_value_of_another_type_is_malformed() {
    let mut out = Vec::new();
    for (kind, value) in [
        (Kind::Numeric, &[0, 1, 0, 0, 0, 0, 0, 0][..]),
        (Kind::Numeric, &[0, 0, 0, 0, 1, 1, 0, 0]),
        (Kind::Float, &[1, 2]),
        (Kind::Interval, &[0; 8]),
        (Kind::TimeTz, &[0; 8]),
        (Kind::Inet, &[2, 33, 0, 4, 0, 0, 0, 0]),
        (Kind::Signed, &[]),
    ] {
        assert!(rule(kind, false, false).append(Some(value), &mut out).is_err(), "{kind:?}");
    }
}

#[test]
fn a_stream_that_is_not_sorted_is_an_error() {
    let mut merge = Merge::new(1);
    merge.offer(0, &mut vec![2]).expect("the first");
    assert_eq!(merge.take(), Some(0));
    assert_eq!(merge.offer(0, &mut vec![1]), Err(Unsorted { stream: 0 }));
}

/// Runs sorted streams through a merge, and says which rows come out: stream and key.
fn merged(streams: &[Vec<Vec<u8>>], window: &mut Window, known_by: usize) -> Vec<Vec<u8>> {
    let mut merge = Merge::new(streams.len());
    let mut at = vec![0; streams.len()];
    let mut key = Vec::new();
    let mut offer = |merge: &mut Merge, stream: usize| {
        if let Some(row) = streams[stream].get(at[stream]) {
            at[stream] += 1;
            key.clone_from(row);
            merge.offer(stream, &mut key).expect("sorted");
        }
    };
    (0..streams.len()).for_each(|stream| offer(&mut merge, stream));
    let mut out = Vec::new();
    while let Some(stream) = merge.take() {
        let row = merge.key(stream).to_vec();
        match window.take(&row, known_by) {
            Verdict::Send => out.push(row),
            Verdict::Drop => {}
            Verdict::End => break,
        }
        offer(&mut merge, stream);
    }
    out
}

proptest! {
    #[test]
    fn merging_is_sorting(
        mut streams in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(0_u8..3, 0..12), 0..20), 1..7),
        skip in 0_u64..10,
        left in prop::option::of(0_u64..30),
        ties: bool,
    ) {
        streams.iter_mut().for_each(|rows| rows.sort());
        let mut all = streams.concat();
        all.sort();
        let mut window = Window::new(Counter::new(skip, left), false, ties);
        let got = merged(&streams, &mut window, 0);
        let rest = all.get(skip as usize..).unwrap_or_default();
        let mut end = left.map_or(rest.len(), |left| rest.len().min(left as usize));
        while ties && end > 0 && rest.get(end) == rest.get(end - 1) {
            end += 1;
        }
        prop_assert_eq!(got, &rest[..end]);
    }

    #[test]
    fn distinct_keeps_the_first_of_equal_rows(
        mut streams in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(0_u8..3, 3..4), 0..20), 1..7),
        skip in 0_u64..5,
        left in prop::option::of(0_u64..8),
        known_by in 1_usize..4,
    ) {
        streams.iter_mut().for_each(|rows| rows.sort());
        let mut all = streams.concat();
        all.sort();
        all.dedup_by(|a, b| a[..known_by] == b[..known_by]);
        let mut window = Window::new(Counter::new(skip, left), true, false);
        let got = merged(&streams, &mut window, known_by);
        let rest = all.get(skip as usize..).unwrap_or_default();
        let end = left.map_or(rest.len(), |left| rest.len().min(left as usize));
        prop_assert_eq!(got, &rest[..end]);
    }

    #[test]
    fn integers_compare_as_numbers(a: i64, b: i64, c: i32, d: i32) {
        prop_assert_eq!(order(Kind::Signed, &a, &b, |n| n.to_be_bytes().to_vec()), a.cmp(&b));
        prop_assert_eq!(order(Kind::Signed, &c, &d, |n| n.to_be_bytes().to_vec()), c.cmp(&d));
    }

    #[test]
    fn floats_compare_as_numbers(a: f64, b: f64) {
        let want = a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
        prop_assert_eq!(order(Kind::Float, &a, &b, |n| n.to_be_bytes().to_vec()), want);
    }

    #[test]
    fn numerics_compare_as_numbers(
        a in (any::<bool>(), -3_i16..3, prop::collection::vec(0_u16..10000, 0..4)),
        b in (any::<bool>(), -3_i16..3, prop::collection::vec(0_u16..10000, 0..4)),
    ) {
        // 10000^-6 is the smallest digit that there can be.
        let value = |(negative, weight, digits): &(bool, i16, Vec<u16>)| {
            let sum: i128 = digits.iter().enumerate().map(|(place, digit)| {
                i128::from(*digit) * 10_000_i128.pow((i32::from(*weight) - place as i32 + 6) as u32)
            }).sum();
            if *negative { -sum } else { sum }
        };
        let binary = |(negative, weight, digits): &(bool, i16, Vec<u16>)| numeric(*negative, *weight, digits);
        prop_assert_eq!(order(Kind::Numeric, &a, &b, binary), value(&a).cmp(&value(&b)));
    }

    #[test]
    fn bytes_compare_as_bytes(a: Vec<u8>, b: Vec<u8>, c in "[ ab\0]{0,4}", d in "[ ab\0]{0,4}") {
        prop_assert_eq!(order(Kind::Bytes, &a, &b, Vec::clone), a.cmp(&b));
        let blank = |text: &String| text.clone().into_bytes();
        let trimmed = |text: &str| text.trim_end_matches(' ').to_owned();
        prop_assert_eq!(order(Kind::Blank, &c, &d, blank), trimmed(&c).cmp(&trimmed(&d)));
    }

    #[test]
    fn intervals_compare_by_their_length(
        a in (-1_000_i64..1_000, -100_i32..100, -5_i32..5),
        b in (-1_000_i64..1_000, -100_i32..100, -5_i32..5),
    ) {
        let micros = |(hours, days, months): &(i64, i32, i32)| {
            i128::from(*hours * 3_600_000_000) + i128::from(*days + *months * 30) * 86_400_000_000
        };
        let binary = |(hours, days, months): &(i64, i32, i32)| {
            interval(hours * 3_600_000_000, *days, *months)
        };
        prop_assert_eq!(order(Kind::Interval, &a, &b, binary), micros(&a).cmp(&micros(&b)));
    }

    #[test]
    fn direction_and_nulls_are_each_their_own(
        a in prop::option::of(any::<Vec<u8>>()),
        b in prop::option::of(any::<Vec<u8>>()),
        descending: bool,
        nulls_first: bool,
    ) {
        let rule = rule(Kind::Bytes, descending, nulls_first);
        let want = match (&a, &b) {
            (Some(a), Some(b)) if descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) if nulls_first => a.is_some().cmp(&b.is_some()),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        let (x, y) = (key(rule, a.as_deref()), key(rule, b.as_deref()));
        prop_assert_eq!(x.cmp(&y), want);
        // No key begins another, so what follows it cannot change the order.
        prop_assert!(x == y || (!x.starts_with(&y) && !y.starts_with(&x)));
    }
}
