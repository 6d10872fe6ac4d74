//! One pass over a statement's bytes: where it ends, its literals, and its fingerprint.
//!
//! The hot path of the simple protocol is this function and one lookup, so it allocates nothing
//! once its buffers have grown. The fingerprint is a 128-bit xxh3 over the statement with
//! literals replaced by their kind, unquoted words folded to lower case, comments and white space
//! reduced to nothing (hints `/* pgherd: … */` kept).

/// What one [`scan`] found. Reused from statement to statement.
#[derive(Debug, Default)]
pub struct Scan {
    /// Equal for statements that differ in literals, case of words, comments and white space only.
    pub fingerprint: u128,
    /// The literals in order, offsets counted from the statement's first byte.
    pub literals: Vec<Literal>,
    /// The highest `$n`.
    pub params: u16,
    normalized: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Literal {
    pub start: u32,
    pub end: u32,
    pub kind: LiteralKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralKind {
    /// Digits only.
    Integer,
    /// With a point or an exponent.
    Decimal,
    /// `'…'` without a backslash or with it as a plain character.
    String,
    /// `E'…'`.
    EscapeString,
    /// `$tag$…$tag$`.
    DollarString,
    /// `B'…'`, `X'…'`, `U&'…'`, `N'…'`.
    OtherString,
}
