//! PostgreSQL's encodings by all of their names, and what matters of them to whoever cuts rows: ASCII is
//! the same in all of them, but not every byte below 128 is a character.

/// An encoding of PostgreSQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    pub name: &'static str,
    pub coding: Coding,
}

/// How its characters are made of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// What the router and its shards speak.
    Utf8,
    /// Each byte is a character.
    Single,
    /// A character that is not ASCII has no byte that is.
    High,
    /// It has two bytes, and the second may look like ASCII.
    Double,
    /// The same, but 0xA1 to 0xDF stand alone.
    Sjis,
    /// The same, but two characters of two bytes become ASCII: a backslash may be one of them.
    Odd,
    /// It has two bytes, or four where the second is a digit.
    Gb18030,
}

impl Encoding {
    pub const UTF8: Self = Self { name: "UTF8", coding: Coding::Utf8 };

    /// By any of its names, in any spelling.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        let letters = name.iter().filter(|byte| byte.is_ascii_alphanumeric());
        let plain: String = letters.map(|byte| char::from(byte.to_ascii_lowercase())).collect();
        let number = plain.strip_prefix("windows").map(|number| format!("win{number}"));
        let (name, coding) = match number.as_deref().unwrap_or(&plain) {
            // Bytes of SQL_ASCII are taken as they are.
            "utf8" | "unicode" | "sqlascii" => ("UTF8", Coding::Utf8),
            "latin1" | "iso88591" => ("LATIN1", Coding::Single),
            "latin2" | "iso88592" => ("LATIN2", Coding::Single),
            "latin3" | "iso88593" => ("LATIN3", Coding::Single),
            "latin4" | "iso88594" => ("LATIN4", Coding::Single),
            "latin5" | "iso88599" => ("LATIN5", Coding::Single),
            "latin6" | "iso885910" => ("LATIN6", Coding::Single),
            "latin7" | "iso885913" => ("LATIN7", Coding::Single),
            "latin8" | "iso885914" => ("LATIN8", Coding::Single),
            "latin9" | "iso885915" => ("LATIN9", Coding::Single),
            "latin10" | "iso885916" => ("LATIN10", Coding::Single),
            "iso88595" => ("ISO_8859_5", Coding::Single),
            "iso88596" => ("ISO_8859_6", Coding::Single),
            "iso88597" => ("ISO_8859_7", Coding::Single),
            "iso88598" => ("ISO_8859_8", Coding::Single),
            "koi8" | "koi8r" => ("KOI8R", Coding::Single),
            "koi8u" => ("KOI8U", Coding::Single),
            "win866" | "alt" => ("WIN866", Coding::Single),
            "win874" => ("WIN874", Coding::Single),
            "win1250" => ("WIN1250", Coding::Single),
            "win1251" | "win" => ("WIN1251", Coding::Single),
            "win1252" => ("WIN1252", Coding::Single),
            "win1253" => ("WIN1253", Coding::Single),
            "win1254" => ("WIN1254", Coding::Single),
            "win1255" => ("WIN1255", Coding::Single),
            "win1256" => ("WIN1256", Coding::Single),
            "win1257" => ("WIN1257", Coding::Single),
            "win1258" | "abc" | "tcvn" | "tcvn5712" | "vscii" => ("WIN1258", Coding::Single),
            "euccn" => ("EUC_CN", Coding::High),
            "eucjp" => ("EUC_JP", Coding::High),
            "eucjis2004" => ("EUC_JIS_2004", Coding::High),
            "euckr" => ("EUC_KR", Coding::High),
            "euctw" => ("EUC_TW", Coding::High),
            "muleinternal" => ("MULE_INTERNAL", Coding::High),
            "big5" | "win950" => ("BIG5", Coding::Double),
            "gbk" | "win936" => ("GBK", Coding::Double),
            "uhc" | "win949" => ("UHC", Coding::Double),
            "johab" => ("JOHAB", Coding::Double),
            "sjis" | "shiftjis" | "mskanji" | "win932" => ("SJIS", Coding::Sjis),
            "shiftjis2004" => ("SHIFT_JIS_2004", Coding::Odd),
            "gb18030" => ("GB18030", Coding::Gb18030),
            _ => return None,
        };
        Some(Self { name, coding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_known_by_postgresqls_names() {
        let name = |text: &str| Encoding::named(text.as_bytes()).map(|encoding| encoding.name);
        assert_eq!(name("utf-8"), Some("UTF8"));
        assert_eq!(name("ISO-8859-15"), Some("LATIN9"));
        assert_eq!(name("Windows-1252"), Some("WIN1252"));
        assert_eq!(name("Shift_JIS"), Some("SJIS"));
        assert_eq!(name("latin11"), None);
        assert_eq!(name(""), None);
    }
}
