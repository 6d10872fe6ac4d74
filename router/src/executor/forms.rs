//! Rows that go from one server to another as text: what one writes the other must read as the same
//! value, and in full. Some settings of a session are in the way of that.

use super::Conn;
use crate::error::{ErrorInfo, Failure};

impl Conn {
    /// Refuses to send rows on as text where that would change them. `at` is any server that has the
    /// session's settings.
    pub(super) fn refuse_odd_forms(&self, at: usize) -> Result<(), Failure> {
        let parameters = &self.servers[at].parameters;
        let told = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case("DateStyle"));
        let said = |name| self.session.settings.word(name).map(|word| word.trim().to_lowercase());
        let off =
            |word: &String| matches!(&**word, "off" | "of" | "false" | "f" | "no" | "n" | "0");
        let (setting, why) = if told.is_some_and(|(_, style)| !style.starts_with("ISO")) {
            ("DateStyle", "names time zones by abbreviations that mean several")
        } else if said("extra_float_digits")
            .and_then(|digits| digits.parse::<i32>().ok())
            .is_some_and(|digits| digits <= 0)
        {
            ("extra_float_digits", "rounds floating point numbers")
        } else if said("array_nulls").as_ref().is_some_and(off) {
            ("array_nulls", "makes words of the NULLs in arrays")
        } else if said("xmloption").is_some_and(|option| option == "document") {
            ("xmloption", "refuses what is no whole document")
        } else {
            return Ok(());
        };
        Err(ErrorInfo::new("0A000", format!("the statement needs another {setting}"))
            .detail(format!(
                "It sends rows between shards as text, and the session's {setting} {why}."
            ))
            .hint(format!("RESET {setting}"))
            .into())
    }
}
