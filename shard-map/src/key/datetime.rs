//! `date`, `time`, `timestamp`, `timestamptz` in the ISO forms, which every DateStyle reads alike.
//!
//! `2024-01-02`, `20240102`, `03:04`, `03:04:05.678901`, `2024-01-02T03:04:05Z`,
//! `2024-01-02 03:04:05+05:30`, `0044-03-15 BC`, `infinity`. Everything else that has a digit or a
//! known word in it may mean something under some setting, and is refused.

use super::{Read, Unread, trim};

const OTHER: Unread = Unread::Unsupported("only the ISO forms of dates and times are read here");
const DAY: i64 = 86_400_000_000;

/// From 2000-01-01 to the first and past the last day that PostgreSQL has.
const FIRST_DAY: i64 = -2_451_545;
const END_OF_DAYS: i64 = 2_145_031_949;
/// The same for timestamps, in microseconds.
const FIRST_TIMESTAMP: i64 = -211_813_488_000_000_000;
const END_OF_TIMESTAMPS: i64 = 9_223_371_331_200_000_000;

/// Days since 2000-01-01.
pub(super) fn date(text: &[u8]) -> Read<i64> {
    let mut rest = Reader(trim(text));
    if let Some(later) = rest.infinity() {
        return Ok(if later { i32::MAX.into() } else { i32::MIN.into() });
    }
    let written = rest.date().ok_or_else(|| judge(text))?;
    let before_christ = rest.era();
    rest.end()?;
    let day = written.day(before_christ)?;
    if (FIRST_DAY..END_OF_DAYS).contains(&day) { Ok(day) } else { Err(Unread::Invalid) }
}

/// Microseconds since midnight.
pub(super) fn time(text: &[u8]) -> Read<i64> {
    let mut rest = Reader(trim(text));
    let time = rest.time().ok_or_else(|| judge(text))?;
    rest.end()?;
    time
}

/// Microseconds since 2000-01-01. A zone is read and, as in PostgreSQL, left out of account.
pub(super) fn timestamp(text: &[u8]) -> Read<i64> {
    moment(text, |micros, _| Ok(micros))
}

/// Microseconds since 2000-01-01 00:00 UTC. Without a zone it would depend on the session's.
pub(super) fn timestamptz(text: &[u8]) -> Read<i64> {
    moment(text, |micros, zone| match zone {
        Some(east) => micros.checked_sub(east).ok_or(Unread::Invalid),
        None => Err(Unread::Unsupported("it has no time zone, so the session's would decide")),
    })
}

fn moment(text: &[u8], shift: impl FnOnce(i64, Option<i64>) -> Read<i64>) -> Read<i64> {
    let mut rest = Reader(trim(text));
    if let Some(later) = rest.infinity() {
        return Ok(if later { i64::MAX } else { i64::MIN });
    }
    let written = rest.date().ok_or_else(|| judge(text))?;
    let (mut time, mut zone) = (Ok(0), None);
    if rest.separator() {
        time = rest.time().ok_or(OTHER)?;
        zone = rest.zone()?;
    }
    let before_christ = rest.era();
    rest.end()?;
    let day = written.day(before_christ)?;
    let micros = day.checked_mul(DAY).and_then(|day| day.checked_add(time.ok()?));
    let micros = shift(micros.ok_or(Unread::Invalid)?, zone)?;
    let valid = (FIRST_TIMESTAMP..END_OF_TIMESTAMPS).contains(&micros);
    if valid { Ok(micros) } else { Err(Unread::Invalid) }
}

/// Numbers as written; whether there is such a day is another question.
struct Written {
    year: i64,
    month: i64,
    day: i64,
}

impl Written {
    /// Days since 2000-01-01 in the Gregorian calendar, also before it was invented.
    fn day(&self, before_christ: bool) -> Read<i64> {
        let &Self { year, month, day } = self;
        if year == 0 {
            return Err(Unread::Invalid);
        }
        let year = if before_christ { 1 - year } else { year };
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return Err(Unread::Invalid),
        };
        if !(1..=days).contains(&day) {
            return Err(Unread::Invalid);
        }
        // Years begin in March, so that the leap day is their last. 400 years have 146097 days.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * month + 2) / 5 + day - 1;
        let of_cycle = of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year;
        Ok(cycle * 146_097 + of_cycle - 730_425)
    }
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// An unsigned number of so many digits, all that stand here.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(least..=most).contains(&count) {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn sign(&mut self, sign: u8) -> bool {
        let found = self.0.first() == Some(&sign);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn blanks(&mut self) -> bool {
        let before = self.0.len();
        self.0 = self.0.trim_ascii_start();
        self.0.len() < before
    }

    /// `true` for infinity, `false` for -infinity.
    fn infinity(&self) -> Option<bool> {
        if self.0.eq_ignore_ascii_case(b"infinity") {
            Some(true)
        } else {
            self.0.eq_ignore_ascii_case(b"-infinity").then_some(false)
        }
    }

    /// `YYYY-MM-DD` with four digits of the year or more, or `YYYYMMDD`.
    fn date(&mut self) -> Option<Written> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 8 && self.0.get(8) != Some(&b'-') {
            let all = self.number(8, 8)?;
            return Some(Written { year: all / 10_000, month: all / 100 % 100, day: all % 100 });
        }
        let year = self.number(4, 7)?;
        let month = self.sign(b'-').then(|| self.number(1, 2))??;
        let day = self.sign(b'-').then(|| self.number(1, 2))??;
        Some(Written { year, month, day })
    }

    /// Blanks or a `T` before the time. An era may follow blanks too.
    fn separator(&mut self) -> bool {
        if let [b'T' | b't', b'0'..=b'9', ..] = self.0 {
            self.0 = &self.0[1..];
            return true;
        }
        let blanked = Self(self.0.trim_ascii_start());
        let time =
            blanked.0.len() < self.0.len() && blanked.0.first().is_some_and(u8::is_ascii_digit);
        if time {
            self.0 = blanked.0;
        }
        time
    }

    /// `H:MM`, `HH:MM:SS`, `HH:MM:SS.ffffff`. The 60th second and more digits are not read.
    fn time(&mut self) -> Option<Read<i64>> {
        let hour = self.number(1, 2)?;
        let minute = self.sign(b':').then(|| self.number(2, 2))??;
        let (mut second, mut micros) = (0, 0);
        if self.sign(b':') {
            second = self.number(2, 2)?;
            if self.sign(b'.') {
                let before = self.0.len();
                micros = self.number(1, 6)?;
                for _ in before - self.0.len()..6 {
                    micros *= 10;
                }
            }
        }
        if second == 60 {
            return None;
        }
        let time = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
        Some(if minute < 60 && second < 60 && time <= DAY {
            Ok(time)
        } else {
            Err(Unread::Invalid)
        })
    }

    /// `Z`, `+HH`, `+HHMM`, `+HH:MM`, `+HH:MM:SS`: microseconds to the east of Greenwich.
    fn zone(&mut self) -> Read<Option<i64>> {
        let start = self.0;
        self.blanks();
        if let [b'Z' | b'z', rest @ ..] = self.0
            && !rest.first().is_some_and(u8::is_ascii_alphanumeric)
        {
            self.0 = rest;
            return Ok(Some(0));
        }
        let west = self.sign(b'-');
        if !west && !self.sign(b'+') {
            self.0 = start;
            return Ok(None);
        }
        let compact = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count() == 4;
        let (hours, mut minutes, mut seconds);
        if compact {
            let all = self.number(4, 4).ok_or(OTHER)?;
            (hours, minutes, seconds) = (all / 100, all % 100, 0);
        } else {
            (minutes, seconds) = (0, 0);
            hours = self.number(2, 2).ok_or(OTHER)?;
            if self.sign(b':') {
                minutes = self.number(2, 2).ok_or(OTHER)?;
                if self.sign(b':') {
                    seconds = self.number(2, 2).ok_or(OTHER)?;
                }
            }
        }
        if hours > 15 || minutes > 59 || seconds > 59 {
            return Err(OTHER);
        }
        let east = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000;
        Ok(Some(if west { -east } else { east }))
    }

    /// ` BC` or ` AD`; true for years before Christ.
    fn era(&mut self) -> bool {
        let start = self.0;
        if self.blanks() {
            for (era, before) in [(b"BC", true), (b"AD", false)] {
                if self.0.eq_ignore_ascii_case(era) {
                    self.0 = &[];
                    return before;
                }
            }
        }
        self.0 = start;
        false
    }

    const fn end(&self) -> Read<()> {
        if self.0.is_empty() { Ok(()) } else { Err(OTHER) }
    }
}

/// Why nothing could be read: without digits only some words are dates, or times.
fn judge(text: &[u8]) -> Unread {
    const WORDS: [&str; 8] =
        ["now", "today", "tomorrow", "yesterday", "epoch", "infinity", "allballs", "inf"];
    let text = text.to_ascii_lowercase();
    let holds = |word: &str| text.windows(word.len()).any(|part| part == word.as_bytes());
    if text.iter().any(u8::is_ascii_digit) || WORDS.iter().any(|word| holds(word)) {
        OTHER
    } else {
        Unread::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_moment_are_one_value() {
        for spelling in
            ["2000-01-02", " 2000-01-02 ", "20000102", "2000-1-2", "2000-01-02 ad", "02000-01-02"]
        {
            assert_eq!(date(spelling.as_bytes()), Ok(1), "{spelling}");
        }
        for spelling in [
            "2000-01-01 00:00:01Z",
            "2000-01-01T00:00:01.000000+00",
            "2000-01-01 05:30:01+05:30",
            "2000-01-01 05:30:01 +0530",
            "1999-12-31 23:00:01-01:00:00",
        ] {
            assert_eq!(timestamptz(spelling.as_bytes()), Ok(1_000_000), "{spelling}");
        }
        for spelling in ["2000-01-01 00:00:01", "2000-01-01T0:00:01.0", "2000-01-01 00:00:01+05"] {
            assert_eq!(timestamp(spelling.as_bytes()), Ok(1_000_000), "{spelling}");
        }
        assert_eq!(timestamp(b"1999-12-31 24:00"), Ok(0));
        assert_eq!(time(b"24:00:00"), Ok(DAY));
        assert_eq!(date(b"4714-11-24 BC"), Ok(FIRST_DAY));
        assert_eq!(date(b"5874897-12-31"), Ok(END_OF_DAYS - 1));
    }

    #[test]
    fn what_depends_on_settings_is_refused_and_what_is_surely_wrong_is_invalid() {
        for unclear in [
            "01/02/2024",
            "02-01-2024",
            "2-1-24",
            "Jan 2 2024",
            "today",
            "epoch",
            "2024.060",
            "24-01-02",
            "2024-01-02 03:04",
            "2024-Jan",
            "2024",
        ] {
            assert_eq!(date(unclear.as_bytes()), Err(OTHER), "{unclear}");
        }
        for unclear in [
            "2024-01-02 03:04:05",
            "2024-01-02",
            "2024-01-02 03:04:05 Europe/Berlin",
            "2024-01-02 03:04:05 EST",
            "2024-01-02 03:04:05+24",
            "2024-01-02 030405Z",
        ] {
            let read = timestamptz(unclear.as_bytes());
            assert!(matches!(read, Err(Unread::Unsupported(_))), "{unclear}");
        }
        for wrong in ["", "abc", "2024-02-30", "2023-02-29", "2024-13-01", "0000-01-01"] {
            assert_eq!(date(wrong.as_bytes()), Err(Unread::Invalid), "{wrong}");
        }
        for wrong in ["24:00:01", "25:00", "12:60", "12:00:61"] {
            assert_eq!(time(wrong.as_bytes()), Err(Unread::Invalid), "{wrong}");
        }
        for unclear in ["12:00 PM", "12:00:60", "120000", "12:00:00.1234567", "12:00+01", "now"] {
            assert_eq!(time(unclear.as_bytes()), Err(OTHER), "{unclear}");
        }
    }
}
