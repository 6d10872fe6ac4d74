//! Why a statement is not run: always with a SQLSTATE, and for what is not supported with the
//! reason (DETAIL) and a way out (HINT).

use std::borrow::Cow;

use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct PlanError {
    /// Five characters, for example `0A000`.
    pub sqlstate: &'static str,
    pub message: Cow<'static, str>,
    pub detail: Option<Cow<'static, str>>,
    pub hint: Option<Cow<'static, str>>,
    /// Character position in the statement, from 1, as PostgreSQL counts.
    pub position: Option<u32>,
}

impl PlanError {
    /// `0A000`: the shape of the statement is not supported.
    pub fn unsupported(
        message: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            sqlstate: "0A000",
            message: message.into(),
            detail: Some(detail.into()),
            hint: Some(hint.into()),
            position: None,
        }
    }

    pub fn new(sqlstate: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { sqlstate, message: message.into(), detail: None, hint: None, position: None }
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
