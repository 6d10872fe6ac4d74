//! The plan cache of one worker: a plan is looked up, not made.
//!
//! First by the fingerprint of the statement; where literals decided something, by its whole text.
//! Both keys are 128 bits wide and carry a seed made of everything else that planning depends on
//! (epoch, search_path, user, settings), so a plan of another context is never found.

use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, fast::FixedState};
use pgherd_planner::{Context, Plan, PlanError, Reuse, Scan, plan};
use pgherd_shard_map::{ShardId, ShardMap};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::usage::Usages;
use crate::consistent_read::ReadConsistency;
use crate::session::Settings;
use crate::session::settings::IDLE_SESSION_TIMEOUT;
use crate::wire::encoding::{self, Encoding};

/// Entries of each level; a plan is some hundred bytes, so both stay below a few megabytes.
const ENTRIES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub struct Plans {
    by_fingerprint: HashMap<u128, Entry>,
    by_text: HashMap<u128, Rc<Plan>>,
    pub hits: u64,
    pub misses: u64,
    pub usage: Usages,
}

#[derive(Debug)]
enum Entry {
    Plan(Rc<Plan>),
    ByText,
}

/// What a session's statements are planned with.
#[derive(Debug)]
pub struct Planning {
    pub map: Arc<ShardMap>,
    settings: Rc<Settings>,
    search_path: Box<[Box<str>]>,
    temporary: Rc<[Box<str>]>,
    pub scatter: bool,
    pub pinned: Option<ShardId>,
    pub one_phase: bool,
    pub consistency: ReadConsistency,
    /// `idle_session_timeout` and `idle_in_transaction_session_timeout` in milliseconds, as far as
    /// the router minds them itself.
    pub idle_limits: [Option<NonZeroU32>; 2],
    /// Of the client's texts, where that is not UTF-8.
    pub encoding: Option<&'static Encoding>,
    pub seed: u64,
    /// A transaction has changed the map for itself: its plans are not for others.
    private: bool,
}

impl Planning {
    #[must_use]
    pub fn new(
        map: Arc<ShardMap>,
        settings: &Rc<Settings>,
        user: &str,
        temporary: &Rc<[Box<str>]>,
        private: bool,
    ) -> Self {
        let search_path = settings.search_path(user).into_boxed_slice();
        let word = |name: &str| settings.value(name).map(|v| v.trim_matches('\'').to_lowercase());
        let scatter = word("pgherd.scatter").is_none_or(|v| !matches!(&*v, "off" | "false" | "0"));
        let pinned = word("pgherd.shard").and_then(|v| v.parse().ok()).map(ShardId);
        let one_phase = word("pgherd.multi_shard_commit").is_some_and(|v| v == "1pc");
        let consistency = word("pgherd.read_consistency").and_then(|v| ReadConsistency::parse(&v));
        let encoding = settings.value("client_encoding").and_then(encoding::reported);
        // Some plans are not for every encoding.
        let encoded = encoding.is_some();
        let seen = (map.epoch, &search_path, temporary, scatter, pinned, user, encoded);
        let seed = FixedState::default().hash_one(seen);
        let limit = |name: &str| settings.word(name).and_then(milliseconds);
        Self {
            map,
            settings: Rc::clone(settings),
            search_path,
            temporary: Rc::clone(temporary),
            scatter,
            pinned,
            one_phase,
            consistency: consistency.unwrap_or(ReadConsistency::DEFAULT),
            idle_limits: [
                limit(IDLE_SESSION_TIMEOUT),
                limit("idle_in_transaction_session_timeout"),
            ],
            encoding,
            seed,
            private,
        }
    }

    /// Whether it was made with these settings and temporary relations.
    #[must_use]
    pub fn is_of(&self, settings: &Rc<Settings>, temporary: &Rc<[Box<str>]>) -> bool {
        Rc::ptr_eq(&self.settings, settings) && Rc::ptr_eq(&self.temporary, temporary)
    }

    /// For the planner.
    #[must_use]
    pub fn context<'a>(&'a self, auto_distribute: &'a [Box<str>]) -> Context<'a> {
        Context {
            map: &self.map,
            search_path: &self.search_path,
            temporary: &self.temporary,
            scatter: self.scatter,
            pinned: self.pinned,
            auto_distribute,
            copies: &[],
        }
    }

    /// Whether plans are the open transaction's alone, since it has changed the schema.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.private
    }

    /// What a prepared statement's plan is good for; `None` while the plans are this
    /// transaction's alone.
    #[must_use]
    pub fn shared_seed(&self) -> Option<u64> {
        (!self.private).then_some(self.seed)
    }
}

/// A time limit as settings have it: a number and a unit, milliseconds without one; 0 is none.
fn milliseconds(text: &str) -> Option<NonZeroU32> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        // Rounded as PostgreSQL rounds it.
        "us" => return NonZeroU32::new(u32::try_from(number.saturating_add(500) / 1000).ok()?),
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    NonZeroU32::new(u32::try_from(number.checked_mul(factor)?).ok()?)
}

impl Plans {
    /// The plan of a statement that has been scanned with `planning.seed`.
    ///
    /// # Errors
    /// The planner's.
    pub fn find(
        &mut self,
        sql: &str,
        scan: &Scan,
        planning: &Planning,
        user: &str,
        auto_distribute: &[Box<str>],
    ) -> Result<Rc<Plan>, PlanError> {
        if !planning.private {
            match self.by_fingerprint.get(&scan.fingerprint) {
                Some(Entry::Plan(plan)) => {
                    self.hits += 1;
                    return Ok(Rc::clone(plan));
                }
                Some(Entry::ByText) => {
                    let key = xxh3_128_with_seed(sql.as_bytes(), planning.seed);
                    if let Some(plan) = self.by_text.get(&key) {
                        self.hits += 1;
                        return Ok(Rc::clone(plan));
                    }
                }
                None => {}
            }
        }
        self.misses += 1;
        let mut made = plan(sql, &planning.context(auto_distribute))?;
        made.place = self.usage.place(user, sql, scan, &made);
        let made = Rc::new(made);
        if !planning.private {
            self.keep(sql, scan, planning, &made);
        }
        Ok(made)
    }

    fn keep(&mut self, sql: &str, scan: &Scan, planning: &Planning, plan: &Rc<Plan>) {
        if self.by_fingerprint.len() >= ENTRIES_MAX {
            self.by_fingerprint.clear();
        }
        if self.by_text.len() >= ENTRIES_MAX {
            self.by_text.clear();
        }
        match plan.reuse {
            Reuse::AnyLiterals => {
                self.by_fingerprint.insert(scan.fingerprint, Entry::Plan(Rc::clone(plan)));
            }
            // Long texts are seldom sent twice, and would make the bound in entries worthless.
            Reuse::SameText if sql.len() <= 8192 => {
                self.by_fingerprint.insert(scan.fingerprint, Entry::ByText);
                let key = xxh3_128_with_seed(sql.as_bytes(), planning.seed);
                self.by_text.insert(key, Rc::clone(plan));
            }
            Reuse::SameText | Reuse::Once => {}
        }
    }
}
