//! A prepared statement on a shard that numbers user-defined types in its own way: declared
//! parameter types, and the element types inside of binary arrays.
//!
//! The client has the home shard's numbers from what it was told of columns and parameters, or from
//! `pg_type`. Few statements declare such types, and the others pay nothing.

use std::borrow::Cow;

use pgherd_shard_map::ShardId;

use super::{Portal, Prepared};
use crate::wire::backend::{FIRST_USER_OID, Numbered};

/// A number of one server and that of the same name on another.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub what: Numbered,
    pub from: u32,
    pub to: u32,
    /// Of an array type: its element type on both.
    pub elements: Option<(u32, u32)>,
}

/// The element type stands behind the number of dimensions and the flags.
const ELEMENT: std::ops::Range<usize> = 8..12;

/// Declared types on one shard.
#[derive(Debug)]
pub struct ForeignTypes {
    shard: ShardId,
    /// As [`Prepared::types`].
    types: Box<[u8]>,
    /// Of parameters that are arrays, by their number from 0: the element type at home and here.
    elements: Box<[(usize, u32, u32)]>,
}

impl ForeignTypes {
    /// `found`: the types of the home shard that the statement declares, as they are here.
    #[must_use]
    pub fn new(shard: ShardId, statement: &Prepared, found: &[Found]) -> Self {
        let (mut types, mut elements) = (statement.types.to_vec(), Vec::new());
        for (number, bytes) in types.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let declared = u32::from_be_bytes(*bytes);
            let Some(found) = found.iter().find(|found| found.from == declared) else { continue };
            *bytes = found.to.to_be_bytes();
            if let Some((from, to)) = found.elements {
                elements.push((number, from, to));
            }
        }
        Self { shard, types: types.into(), elements: elements.into() }
    }
}

impl Prepared {
    /// The user-defined types among the declared ones.
    pub fn user_types(&self) -> impl Iterator<Item = u32> {
        let (types, _) = self.types.as_chunks::<4>();
        types.iter().map(|bytes| u32::from_be_bytes(*bytes)).filter(|oid| *oid >= FIRST_USER_OID)
    }

    /// The declared types as a shard numbers them; as the client said, where that is not known.
    #[must_use]
    pub fn types_on(&self, shard: ShardId) -> &[u8] {
        self.on(shard).map_or(&self.types, |foreign| &foreign.types)
    }

    fn on(&self, shard: ShardId) -> Option<&ForeignTypes> {
        self.foreign.get()?.iter().find(|foreign| foreign.shard == shard)
    }
}

impl Portal {
    /// The bound values and result formats for a shard.
    #[must_use]
    pub fn tail_on(&self, shard: ShardId) -> Cow<'_, [u8]> {
        let foreign = self.statement.on(shard).filter(|foreign| !foreign.elements.is_empty());
        let (Some(foreign), Ok(params)) = (foreign, self.params()) else {
            return Cow::Borrowed(&self.tail);
        };
        let mut tail = self.tail.to_vec();
        for (number, from, to) in &foreign.elements {
            let Some((Some(value), true)) = params.tail.value(*number as u16 + 1) else { continue };
            let Some(element) = value.get(ELEMENT) else { continue };
            if element == from.to_be_bytes() {
                // The value is a part of the tail.
                let at = element.as_ptr().addr() - self.tail.as_ptr().addr();
                tail[at..at + 4].copy_from_slice(&to.to_be_bytes());
            }
        }
        Cow::Owned(tail)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;
    use std::rc::Rc;

    use pgherd_planner::{Access, Action, Plan, Reuse, StatementKind};
    use pgherd_shard_map::Epoch;

    use super::*;

    const ARRAY: u32 = 20_001;
    const LABEL: u32 = 20_000;

    fn statement(types: &[u32]) -> Prepared {
        let plan = Plan {
            epoch: Epoch(1),
            access: Access::Read,
            reuse: Reuse::Once,
            action: Action::Empty,
            then: None,
            place: 0,
            consistency: None,
            touches: None,
            kind: StatementKind::Select,
        };
        Prepared {
            sql: "SELECT".into(),
            types: types.iter().flat_map(|oid| oid.to_be_bytes()).collect(),
            params: None,
            id: 0,
            server_name: Box::default(),
            seed: None,
            plan: Rc::new(plan),
            literals: Box::default(),
            foreign: OnceCell::new(),
            columns: OnceCell::new(),
        }
    }

    /// An array of one element in binary.
    fn array(element: u32) -> Vec<u8> {
        let fields = [1_u32, 0, element, 1, 1, 2].map(u32::to_be_bytes).concat();
        [fields, b"ok".to_vec()].concat()
    }

    /// The end of a Bind with all values in binary.
    fn tail(values: &[&[u8]]) -> Vec<u8> {
        let mut tail = vec![0, 1, 0, 1, 0, values.len() as u8];
        for value in values {
            tail.extend_from_slice(&(value.len() as u32).to_be_bytes());
            tail.extend_from_slice(value);
        }
        tail.extend_from_slice(&[0, 0]);
        tail
    }

    #[test]
    fn declared_types_and_elements_are_those_of_the_shard() {
        let statement = statement(&[23, ARRAY, LABEL]);
        assert_eq!(statement.user_types().collect::<Vec<_>>(), [ARRAY, LABEL]);
        let found = |from, to, elements| Found { what: Numbered::Type, from, to, elements };
        let found = [found(ARRAY, 30_001, Some((LABEL, 30_000))), found(LABEL, 30_000, None)];
        let foreign = ForeignTypes::new(ShardId(2), &statement, &found);
        statement.foreign.set([foreign].into()).expect("it was empty");
        let there = [23_u32, 30_001, 30_000].map(u32::to_be_bytes).concat();
        assert_eq!(statement.types_on(ShardId(2)), there);
        assert_eq!(statement.types_on(ShardId(0)), &*statement.types);
        let four = 4_u32.to_be_bytes();
        let tail_of_home = tail(&[&four, &array(LABEL), b"ok"]).into();
        let portal = Portal::new(Rc::new(statement), true, tail_of_home);
        assert_eq!(*portal.tail_on(ShardId(2)), tail(&[&four, &array(30_000), b"ok"]));
        assert_eq!(*portal.tail_on(ShardId(0)), *portal.tail);
    }

    #[test]
    fn a_value_that_is_no_such_array_stays_as_it_is() {
        let statement = statement(&[ARRAY]);
        let found = [Found {
            what: Numbered::Type,
            from: ARRAY,
            to: 30_001,
            elements: Some((LABEL, 30_000)),
        }];
        let foreign = ForeignTypes::new(ShardId(1), &statement, &found);
        statement.foreign.set([foreign].into()).expect("it was empty");
        let statement = Rc::new(statement);
        for value in [&b""[..], b"short", &array(25)] {
            let tail = tail(&[value]).into();
            let portal = Portal::new(Rc::clone(&statement), true, tail);
            assert_eq!(*portal.tail_on(ShardId(1)), *portal.tail);
        }
    }
}
