//! A target and a statement's values → shards. On the hot path: one literal or parameter is
//! resolved without allocating.

use pgherd_shard_map::{GroupId, KeyError, KeyInput, ShardId, ShardMap};
use smallvec::SmallVec;

use crate::literal::{Value, decode};
use crate::{
    HighBytes, KeySource, KeyUse, Literal, ParamValue, Params, PlanError, ShardSet, Target,
};

impl Target {
    /// The shards that the statement's keys name.
    ///
    /// # Errors
    /// [`PlanError`] where a new row's key is NULL or cannot be hashed, or no shard covers it.
    pub fn resolve(
        &self,
        map: &ShardMap,
        statement: &[u8],
        literals: &[Literal],
        params: &dyn Params,
    ) -> Result<ShardSet, PlanError> {
        match self {
            Self::Home => Ok(ShardSet::Home),
            Self::Any => Ok(ShardSet::Any),
            Self::All => Ok(ShardSet::All),
            Self::Shard(shard) => Ok(ShardSet::Some(SmallVec::from_slice(&[*shard]))),
            Self::Keys { group, keys, why } => {
                let mut search = Search {
                    map,
                    group: *group,
                    why: *why,
                    found: SmallVec::new(),
                    high: params.high_bytes(),
                };
                for (at, key) in keys.iter().enumerate() {
                    if let KeyUse::Both { filters } = *why {
                        let filter = at < filters as usize;
                        search.why = if filter { KeyUse::Filter } else { KeyUse::NewRow };
                    }
                    if !search.source(key, statement, literals, params)? {
                        return Ok(ShardSet::All);
                    }
                }
                Ok(search.finish())
            }
        }
    }
}

impl KeySource {
    /// The one shard of a new row with this key; `None` where the value is none of the column's
    /// type: any shard will say so.
    ///
    /// # Errors
    /// [`PlanError`] where the key is NULL, cannot be hashed, or no shard covers it.
    pub fn shard_of_new_row(
        &self,
        map: &ShardMap,
        group: GroupId,
        statement: &[u8],
        literals: &[Literal],
        params: &dyn Params,
    ) -> Result<Option<ShardId>, PlanError> {
        let (why, found) = (KeyUse::NewRow, SmallVec::new());
        let mut search = Search { map, group, why, found, high: params.high_bytes() };
        search.source(self, statement, literals, params)?;
        Ok(search.found.first().copied())
    }
}

struct Search<'a> {
    map: &'a ShardMap,
    group: GroupId,
    why: KeyUse,
    found: SmallVec<[ShardId; 4]>,
    /// Of the parameters, where they are not UTF-8.
    high: Option<&'a HighBytes>,
}

impl Search<'_> {
    /// False where any shard may hold the key.
    fn source(
        &mut self,
        key: &KeySource,
        statement: &[u8],
        literals: &[Literal],
        params: &dyn Params,
    ) -> Result<bool, PlanError> {
        match *key {
            KeySource::Null => self.add(Err(KeyError::Null)),
            KeySource::Literal { index, negative } => {
                let mut value = Value::new();
                let known = literals.get(index as usize).and_then(|literal| {
                    let text = statement.get(literal.start as usize..literal.end as usize)?;
                    decode(text, literal.kind, &mut value)
                });
                if known.is_none() {
                    return self.unknown("its literal has a form that is not read here");
                }
                if negative {
                    value.insert(0, b'-');
                }
                self.input(KeyInput::Text(&value))
            }
            KeySource::Param { number, cast_oid } => match params.param(number) {
                None => self.unknown("the parameter has no value yet"),
                Some(ParamValue { bytes: None, .. }) => self.add(Err(KeyError::Null)),
                Some(ParamValue { bytes: Some(bytes), binary, type_oid }) => {
                    match cast(type_oid, cast_oid) {
                        Some(type_oid) => self.input(KeyInput::Param { bytes, binary, type_oid }),
                        None => self.unknown("a cast to another type changes it"),
                    }
                }
            },
            KeySource::ParamArray { number, cast_oid } => match params.param(number) {
                None => self.unknown("the parameter has no value yet"),
                Some(ParamValue { bytes: None, .. }) => Ok(true),
                Some(value) => self.array(value, cast_oid),
            },
        }
    }

    fn input(&mut self, key: KeyInput<'_>) -> Result<bool, PlanError> {
        let shard = match (self.high, key) {
            (Some(high), KeyInput::Param { bytes, binary, type_oid })
                if !bytes.is_ascii() && self.map.has_text_keys(self.group) =>
            {
                // Without a character for each byte it is no text: any shard will say so.
                let Some(text) = high.text(bytes) else { return Ok(true) };
                let bytes = text.as_bytes();
                self.map.shard_for(self.group, KeyInput::Param { bytes, binary, type_oid })
            }
            _ => self.map.shard_for(self.group, key),
        };
        self.add(shard)
    }

    fn add(&mut self, shard: Result<ShardId, KeyError>) -> Result<bool, PlanError> {
        match (shard, self.why) {
            (Ok(shard), _) => {
                if let Err(at) = self.found.binary_search(&shard) {
                    self.found.insert(at, shard);
                }
                Ok(true)
            }
            // No row has such a key. What is no value of the type at all PostgreSQL refuses on
            // whichever shard it meets it; what is only out of range (`IN (5, 9999999999)` of an
            // int4) matches nothing, but its neighbours in the list may.
            (
                Err(KeyError::Null | KeyError::Uncovered | KeyError::Invalid { .. }),
                KeyUse::Filter,
            )
            | (Err(KeyError::Invalid { .. }), _) => Ok(true),
            (Err(KeyError::Unsupported { .. }), KeyUse::Filter) => Ok(false),
            (Err(error @ KeyError::Null), _) => Err(PlanError::new("23502", error.to_string())
                .with_detail("The distribution column decides which shard holds the row.")),
            (Err(error), _) => {
                let code = if error == KeyError::Uncovered { "23514" } else { "0A000" };
                let refused = PlanError::new(code, error.to_string());
                Err(match error.hint() {
                    Some(hint) => refused.with_hint(hint),
                    None => refused,
                })
            }
        }
    }

    fn unknown(&self, reason: &'static str) -> Result<bool, PlanError> {
        match self.why {
            KeyUse::Filter => Ok(false),
            KeyUse::NewRow | KeyUse::Both { .. } => Err(PlanError::unsupported(
                "cannot tell the shard of the new row",
                format!("The value of the distribution column is not clear: {reason}."),
                "Write the value as a plain literal or parameter.",
            )),
        }
    }

    fn array(&mut self, value: ParamValue<'_>, cast_oid: u32) -> Result<bool, PlanError> {
        let Some(bytes) = value.bytes else { return Ok(true) };
        let Some(array_oid) = cast(value.type_oid, cast_oid) else { return Ok(false) };
        let declared = element_of(array_oid);
        if value.binary { self.binary_array(bytes) } else { self.text_array(bytes, declared) }
    }

    fn binary_array(&mut self, bytes: &[u8]) -> Result<bool, PlanError> {
        let word = |at: usize| {
            let bytes: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
            Some(i32::from_be_bytes(bytes))
        };
        let (Some(dimensions), Some(element)) = (word(0), word(8)) else { return Ok(false) };
        if dimensions == 0 {
            return Ok(true);
        }
        let Some(count) = word(12).filter(|_| dimensions == 1) else { return Ok(false) };
        let mut at = 20_usize;
        for _ in 0..count {
            let Some(length) = word(at) else { return Ok(false) };
            at += 4;
            let Ok(length) = usize::try_from(length) else {
                continue; // NULL equals nothing
            };
            let Some(item) = bytes.get(at..at.saturating_add(length)) else { return Ok(false) };
            at += length;
            let key = KeyInput::Param { bytes: item, binary: true, type_oid: element as u32 };
            if !self.input(key)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `{1,2,NULL,"a b"}`; anything else of the array syntax may be on any shard.
    fn text_array(&mut self, bytes: &[u8], element: Option<u32>) -> Result<bool, PlanError> {
        let Some(element) = element else { return Ok(false) };
        let trimmed = bytes.trim_ascii();
        let Some(inner) = trimmed.strip_prefix(b"{").and_then(|b| b.strip_suffix(b"}")) else {
            return Ok(false);
        };
        let mut rest = inner.trim_ascii();
        let mut item = Value::new();
        while !rest.is_empty() {
            item.clear();
            let quoted = rest[0] == b'"';
            let mut at = usize::from(quoted);
            loop {
                match rest.get(at) {
                    Some(b'"') if quoted => {
                        at += 1;
                        break;
                    }
                    Some(b'\\') => {
                        let Some(byte) = rest.get(at + 1) else { return Ok(false) };
                        item.push(*byte);
                        at += 2;
                        continue;
                    }
                    None if quoted => return Ok(false),
                    None | Some(b',') if !quoted => break,
                    Some(b'{' | b'}' | b'"') if !quoted => return Ok(false),
                    Some(byte) => item.push(*byte),
                    None => break,
                }
                at += 1;
            }
            let null = !quoted && item.eq_ignore_ascii_case(b"null");
            let text = if quoted { &item[..] } else { item.trim_ascii() };
            if !null {
                let key = KeyInput::Param { bytes: text, binary: false, type_oid: element };
                if !self.input(key)? {
                    return Ok(false);
                }
            }
            rest = rest[at..].trim_ascii_start();
            match rest.split_first() {
                None => break,
                Some((b',', more)) => rest = more.trim_ascii_start(),
                Some(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn finish(self) -> ShardSet {
        if self.found.is_empty() {
            return ShardSet::Any;
        }
        ShardSet::Some(self.found)
    }
}

/// The type that a parameter has after its cast, if the cast cannot change the value.
fn cast(declared: u32, cast: u32) -> Option<u32> {
    const INTEGERS: [u32; 3] = [20, 21, 23];
    const INTEGER_ARRAYS: [u32; 3] = [1005, 1007, 1016];
    match (declared, cast) {
        (0, cast) => Some(cast),
        (declared, 0) => Some(declared),
        (declared, cast) if declared == cast => Some(declared),
        (declared, cast)
            if [INTEGERS, INTEGER_ARRAYS]
                .iter()
                .any(|family| family.contains(&declared) && family.contains(&cast)) =>
        {
            Some(declared)
        }
        // Texts of any length; never `character`, which pads and cuts.
        (25 | 1043, 25 | 1043) | (1009 | 1015, 1009 | 1015) => Some(declared),
        _ => None,
    }
}

/// The element type of an array type; `Some(0)` where the server decides.
fn element_of(array: u32) -> Option<u32> {
    Some(match array {
        0 => 0,
        1005 => 21,
        1007 => 23,
        1016 => 20,
        1009 => 25,
        1015 => 1043,
        1014 => 1042,
        2951 => 2950,
        1182 => 1082,
        1183 => 1083,
        1115 => 1114,
        1185 => 1184,
        1231 => 1700,
        1001 => 17,
        1000 => 16,
        1041 => 869,
        _ => return None,
    })
}
