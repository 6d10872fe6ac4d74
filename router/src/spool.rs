//! Rows that are set aside until the client asks for them: whole DataRows, numbered from 0.
//!
//! The last of them are in memory; what grows beyond a size goes to a temporary file without a name
//! (in `TMPDIR`), which is gone with the session. Rows are found by the block that they are in, and
//! one block is read at a time, so they can be had in any order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::wire;

/// So much is kept in memory.
const MEMORY: usize = 1 << 20;

/// A block has at least so many bytes, and the row with which it has them is its last.
const BLOCK: u64 = 64 * 1024;

#[derive(Debug)]
pub struct Spool {
    blocks: Vec<Block>,
    rows: u64,
    /// What comes behind the file's bytes.
    tail: Vec<u8>,
    file: Option<Arc<File>>,
    in_file: u64,
    /// How many bytes may still come.
    left: u64,
    loaded: Option<Loaded>,
}

/// Where a block starts.
#[derive(Debug, Clone, Copy)]
struct Block {
    row: u64,
    at: u64,
}

#[derive(Debug)]
struct Loaded {
    block: usize,
    bytes: Vec<u8>,
    /// Where each of its rows ends.
    ends: Vec<usize>,
}

/// There are more rows than may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Spool {
    /// For so many bytes at most.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self {
            blocks: Vec::new(),
            rows: 0,
            tail: Vec::new(),
            file: None,
            in_file: 0,
            left: most,
            loaded: None,
        }
    }

    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.in_file + self.tail.len() as u64
    }

    /// Appends a whole DataRow.
    ///
    /// # Errors
    /// [`Full`]
    pub fn push(&mut self, frame: &[u8]) -> Result<(), Full> {
        self.left = self.left.checked_sub(frame.len() as u64).ok_or(Full)?;
        let at = self.bytes();
        if self.blocks.last().is_none_or(|block| at - block.at >= BLOCK) {
            self.blocks.push(Block { row: self.rows, at });
        }
        self.tail.extend_from_slice(frame);
        self.rows += 1;
        // It may have been read when it was shorter.
        self.loaded = None;
        Ok(())
    }

    /// Moves to the file what memory is not to hold. Not cancel safe.
    ///
    /// # Errors
    /// The file system's.
    pub async fn settle(&mut self) -> io::Result<()> {
        if self.tail.len() <= MEMORY {
            return Ok(());
        }
        let (file, tail, at) = (self.file.clone(), std::mem::take(&mut self.tail), self.in_file);
        let size = tail.len() as u64;
        let written = tokio::task::spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile()?),
            };
            file.write_all_at(&tail, at)?;
            io::Result::Ok(file)
        });
        self.file = Some(written.await.map_err(io::Error::other)??);
        self.in_file += size;
        Ok(())
    }

    /// A row by its number.
    ///
    /// # Errors
    /// The file system's.
    pub async fn row(&mut self, number: u64) -> io::Result<Option<&[u8]>> {
        if number >= self.rows {
            return Ok(None);
        }
        let block = self.blocks.partition_point(|block| block.row <= number) - 1;
        if self.loaded.as_ref().is_none_or(|loaded| loaded.block != block) {
            self.loaded = Some(self.load(block).await?);
        }
        let index = (number - self.blocks[block].row) as usize;
        Ok(self.loaded.as_ref().and_then(|Loaded { bytes, ends, .. }| {
            let start = index.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
            bytes.get(start..*ends.get(index)?)
        }))
    }

    async fn load(&self, block: usize) -> io::Result<Loaded> {
        let start = self.blocks[block].at;
        let end = self.blocks.get(block + 1).map_or_else(|| self.bytes(), |next| next.at);
        let in_file = end.min(self.in_file).saturating_sub(start) as usize;
        let mut bytes = match &self.file {
            Some(file) if in_file > 0 => {
                let file = Arc::clone(file);
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = vec![0; in_file];
                    file.read_exact_at(&mut bytes, start)?;
                    io::Result::Ok(bytes)
                });
                read.await.map_err(io::Error::other)??
            }
            _ => Vec::new(),
        };
        let from = start.saturating_sub(self.in_file) as usize;
        let to = end.saturating_sub(self.in_file) as usize;
        bytes.extend_from_slice(&self.tail[from..to]);
        let mut ends = Vec::new();
        let mut at = 0;
        while let Some((_, size)) = wire::whole(&bytes[at..]).map_err(io::Error::other)? {
            at += size;
            ends.push(at);
        }
        Ok(Loaded { block, bytes, ends })
    }
}

/// What a statement has to say while its rows are set aside.
#[derive(Debug)]
pub struct Aside {
    pub spool: Spool,
    /// The start of a message whose end has not come.
    part: Vec<u8>,
    /// Its command tag.
    pub tag: Option<String>,
    /// What the client is told at once: errors, notices, parameters.
    pub passed: Vec<u8>,
    /// Why its rows cannot be kept.
    pub trouble: Option<Trouble>,
}

#[derive(Debug)]
pub enum Trouble {
    Full,
    File(io::Error),
}

impl Aside {
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self {
            spool: Spool::new(most),
            part: Vec::new(),
            tag: None,
            passed: Vec::new(),
            trouble: None,
        }
    }

    /// Takes what would be written to the client. Not cancel safe.
    pub async fn take(&mut self, bytes: &[u8]) {
        let mut part = std::mem::take(&mut self.part);
        let rest: &[u8] = if part.is_empty() {
            let used = self.take_whole(bytes);
            &bytes[used..]
        } else {
            part.extend_from_slice(bytes);
            let used = self.take_whole(&part);
            part.drain(..used);
            &[]
        };
        part.extend_from_slice(rest);
        self.part = part;
        if self.trouble.is_none()
            && let Err(error) = self.spool.settle().await
        {
            self.trouble = Some(Trouble::File(error));
        }
    }

    /// How many bytes of whole messages there were.
    fn take_whole(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Ok(Some((tag, size))) = wire::whole(&bytes[at..]) {
            let frame = &bytes[at..at + size];
            match tag {
                b'D' if self.trouble.is_none() => {
                    if self.spool.push(frame) == Err(Full) {
                        self.trouble = Some(Trouble::Full);
                    }
                }
                b'C' => {
                    let tag = &frame[wire::HEADER..size - 1];
                    self.tag = Some(String::from_utf8_lossy(tag).into_owned());
                }
                b'D' | b'T' | b'n' | b'1' | b'2' => {}
                _ => self.passed.extend_from_slice(frame),
            }
            at += size;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> Vec<u8> {
        let text = format!("row {number} {}", "x".repeat((number % 300) as usize));
        let mut out = Vec::new();
        wire::backend::data_row(&mut out, &[Some(text.as_bytes())]);
        out
    }

    #[tokio::test]
    async fn rows_come_back_in_any_order_from_memory_and_file() {
        let mut spool = Spool::new(u64::MAX);
        let rows = 30_000;
        for number in 0..rows {
            spool.push(&row(number)).expect("there is room");
            if number % 1000 == 0 {
                spool.settle().await.expect("a temporary file");
            }
        }
        assert!(spool.in_file > 0 && !spool.tail.is_empty(), "in both places");
        let back_and_forth = (0..rows).step_by(97).chain((0..rows).rev().step_by(89));
        for number in back_and_forth {
            let found = spool.row(number).await.expect("it can be read");
            assert_eq!(found, Some(&*row(number)), "row {number}");
        }
        assert_eq!(spool.row(rows).await.expect("nothing is read"), None);
    }

    #[tokio::test]
    async fn a_row_that_is_too_much_is_told() {
        let mut spool = Spool::new(2 * row(1).len() as u64);
        assert_eq!(spool.push(&row(1)), Ok(()));
        assert_eq!(spool.push(&row(1)), Ok(()));
        assert_eq!(spool.push(&row(1)), Err(Full));
        assert_eq!(spool.rows(), 2);
    }

    #[tokio::test]
    async fn messages_are_told_apart_however_they_are_cut() {
        let mut reply = Vec::new();
        wire::backend::text_columns(&mut reply, &["a"]);
        for number in 0..5 {
            reply.extend(row(number));
        }
        let notice = crate::error::ErrorInfo::new("01000", "take care");
        wire::backend::notice_response(&mut reply, "NOTICE", &notice);
        wire::backend::command_complete(&mut reply, "SELECT 5");
        for cut in [1, 2, 7, 100, reply.len()] {
            let mut aside = Aside::new(1 << 20);
            for piece in reply.chunks(cut) {
                aside.take(piece).await;
            }
            assert_eq!(aside.tag.as_deref(), Some("SELECT 5"), "cut at {cut}");
            assert_eq!(aside.spool.rows(), 5, "cut at {cut}");
            assert_eq!(aside.passed[0], b'N', "cut at {cut}");
            assert!(aside.part.is_empty(), "cut at {cut}");
        }
    }
}
