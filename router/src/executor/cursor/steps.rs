//! Where a cursor goes and what it sends on the way, as PostgreSQL's `PortalRunFetch` has it.

use pgherd_planner::Step;

use super::super::Conn;
use super::{Cursor, Rows, cannot_run, file_failed, unknown};
use crate::error::{ErrorInfo, Failure};
use crate::spool::Spool;

impl Conn {
    /// Moves a cursor as FETCH does. How many rows it has sent, or passed.
    pub(super) async fn take_step(
        &mut self,
        name: &[u8],
        step: Step,
        shows: bool,
    ) -> Result<u64, Failure> {
        let taken = self.cursors.as_mut().and_then(|cursors| cursors.named.remove_entry(name));
        let Some((name, mut cursor)) = taken else { return Err(unknown(name).into()) };
        let stepped = match (cursor.failed, self.check_bound(&cursor.portal)) {
            (true, _) => Err(cannot_run(&name).into()),
            (false, Err(refused)) => Err(refused.into()),
            (false, Ok(())) => self.walk(&mut cursor, step, shows).await,
        };
        cursor.failed |= stepped.is_err();
        self.cursors.get_or_insert_default().named.insert(name, cursor);
        stepped
    }

    async fn walk(&mut self, cursor: &mut Cursor, step: Step, shows: bool) -> Result<u64, Failure> {
        let to = |row: i64| row.unsigned_abs();
        match step {
            Step::Forward(Some(0)) | Step::Backward(Some(0)) | Step::Relative(0) => {
                if cursor.at == 0 || cursor.ended {
                    return Ok(0);
                }
                if !shows {
                    return Ok(1);
                }
                cursor.go_to(cursor.at - 1)?;
                self.forward(cursor, Some(1), true).await
            }
            Step::Forward(rows) => self.forward(cursor, rows, shows).await,
            Step::Backward(rows) => self.backward(cursor, rows, shows).await,
            Step::Absolute(0) => Ok(cursor.go_to(0).map(|()| 0)?),
            Step::Absolute(row) if row > 0 => {
                // One behind the last row stays where it is, or goes back.
                let here = cursor.at + u64::from(cursor.ended);
                if to(row) <= here {
                    cursor.go_to(to(row) - 1)?;
                } else {
                    self.forward(cursor, Some(to(row) - 1 - cursor.at), false).await?;
                }
                self.forward(cursor, Some(1), shows).await
            }
            Step::Absolute(row) => {
                cursor.need_scroll()?;
                self.forward(cursor, None, false).await?;
                self.backward(cursor, Some(to(row) - 1), false).await?;
                self.backward(cursor, Some(1), shows).await
            }
            Step::Relative(rows) if rows > 0 => {
                self.forward(cursor, Some(to(rows) - 1), false).await?;
                self.forward(cursor, Some(1), shows).await
            }
            Step::Relative(rows) => {
                self.backward(cursor, Some(to(rows) - 1), false).await?;
                self.backward(cursor, Some(1), shows).await
            }
        }
    }

    async fn forward(
        &mut self,
        cursor: &mut Cursor,
        wanted: Option<u64>,
        shows: bool,
    ) -> Result<u64, Failure> {
        if cursor.ended || wanted == Some(0) {
            return Ok(0);
        }
        let sent = match &mut cursor.rows {
            Rows::OnShards(rows) => self.pull(rows, wanted, shows).await?,
            Rows::Aside(spool) => {
                let left = spool.rows() - cursor.at;
                let sent = wanted.map_or(left, |wanted| wanted.min(left));
                if shows {
                    for number in cursor.at..cursor.at + sent {
                        self.show_row(spool, number).await?;
                    }
                }
                sent
            }
        };
        cursor.at += sent;
        cursor.ended = wanted.is_none_or(|wanted| sent < wanted);
        Ok(sent)
    }

    async fn backward(
        &mut self,
        cursor: &mut Cursor,
        wanted: Option<u64>,
        shows: bool,
    ) -> Result<u64, Failure> {
        if wanted == Some(0) {
            return Ok(0);
        }
        cursor.need_scroll()?;
        let Rows::Aside(spool) = &mut cursor.rows else { return Err(only_forward().into()) };
        let before = if cursor.ended { cursor.at } else { cursor.at.saturating_sub(1) };
        let sent = wanted.map_or(before, |wanted| wanted.min(before));
        if shows {
            for number in (before - sent..before).rev() {
                self.show_row(spool, number).await?;
            }
        }
        let to_start = wanted.is_none_or(|wanted| sent < wanted);
        cursor.at = if to_start { 0 } else { before - sent + 1 };
        cursor.ended = false;
        Ok(sent)
    }

    /// Row `number`, from 0.
    async fn show_row(&mut self, spool: &mut Spool, number: u64) -> Result<(), Failure> {
        let row = spool.row(number).await.map_err(|error| file_failed(&error))?;
        self.client.out.extend_from_slice(row.unwrap_or_default());
        self.client.flush_if_high().await?;
        Ok(())
    }
}

impl Cursor {
    /// To this row, from 1, without a look at it.
    fn go_to(&mut self, row: u64) -> Result<(), ErrorInfo> {
        if (self.at, self.ended) != (row, false) {
            self.need_scroll()?;
        }
        self.at = row;
        self.ended = false;
        Ok(())
    }

    fn need_scroll(&self) -> Result<(), ErrorInfo> {
        if self.scrolls { Ok(()) } else { Err(only_forward()) }
    }
}

fn only_forward() -> ErrorInfo {
    ErrorInfo::new("55000", "cursor can only scan forward")
        .hint("Declare it with SCROLL option to enable backward scan.")
}
