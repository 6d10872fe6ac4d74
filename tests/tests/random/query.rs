//! A statement from a seed: joins of every kind over keys and other columns, subqueries,
//! aggregates, windows, set operations, views, parameters. Whatever it is, PostgreSQL accepts it and its answer does
//! not depend on the order of rows.

/// A shop: two tables by customer, one by its own key, one everywhere, one at home.
pub(crate) const SCHEMA: &[&str] = &[
    "CREATE TABLE customers (id int PRIMARY KEY, name text, country text, since date, score numeric)",
    "CREATE TABLE orders (customer_id int, id int, amount numeric, note text, at timestamp, PRIMARY KEY (customer_id, id))",
    "CREATE TABLE items (id int PRIMARY KEY, order_id int, product text, quantity int)",
    "CREATE TABLE countries (code text PRIMARY KEY, title text)",
    "CREATE TABLE plain (id int PRIMARY KEY, word text)",
    "CREATE VIEW parts AS SELECT customer_id, id, note, amount FROM orders WHERE id <> 2",
    "CREATE VIEW wholes AS SELECT note, count(*) AS n, min(customer_id) AS least FROM orders GROUP BY note",
    "INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France'), ('pl', NULL), ('xx', 'Nowhere')",
    "INSERT INTO plain VALUES (1, 'one'), (2, 'two'), (3, NULL), (7, 'seven'), (11, 'de')",
    "INSERT INTO customers VALUES (1, 'Ada', 'de', '2020-01-01', 1.5), (2, 'bob', 'fr', '2021-02-03', NULL), (3, 'Cyd', 'pl', NULL, 3), (4, 'Dan', NULL, '2020-05-05', 1.5), (5, 'Eve', 'de', '2019-12-31', -2), (6, NULL, 'xx', '2020-01-01', 0), (7, 'éve', 'fr', '2022-02-02', 10), (8, 'ada', 'de', '2020-01-01', 100)",
    "INSERT INTO orders VALUES (1, 1, 10.5, 'a', '2024-01-01 10:00'), (1, 2, 20, NULL, '2024-01-02 10:00'), (2, 3, 5.25, 'b', NULL), (3, 4, 100, 'c', '2024-02-02 10:00'), (3, 5, NULL, 'a', NULL), (5, 6, 7.75, 'e', '2024-03-01 10:00'), (5, 7, 7.75, 'e', '2024-03-01 10:00'), (9, 8, 1, 'x', '2024-03-02 10:00'), (7, 9, 0, '', '2024-01-01 10:00')",
    "INSERT INTO items VALUES (1, 1, 'pen', 2), (2, 1, 'ink', 1), (3, 3, 'pen', 5), (4, 4, 'cup', 1), (5, 6, 'pen', NULL), (6, 6, 'a', 3), (7, 8, 'ink', 2), (8, NULL, 'de', 1), (9, 99, NULL, 0)",
];

/// What the router alone is told, after the statement that begins so.
pub(crate) const SHARDED: &[(&str, &str)] = &[
    ("CREATE TABLE customers", "SELECT create_distributed_table('customers', 'id')"),
    (
        "CREATE TABLE orders",
        "SELECT create_distributed_table('orders', 'customer_id', colocate_with => 'customers')",
    ),
    ("CREATE TABLE items", "SELECT create_distributed_table('items', 'id')"),
    ("CREATE TABLE countries", "SELECT create_reference_table('countries')"),
];

pub(super) struct Table {
    pub(super) name: &'static str,
    /// What no two rows have in common.
    pub(super) key: &'static [&'static str],
    pub(super) ints: &'static [&'static str],
    pub(super) texts: &'static [&'static str],
    pub(super) others: &'static [&'static str],
}

const TABLES: &[Table] = &[
    Table {
        name: "customers",
        key: &["id"],
        ints: &["id"],
        texts: &["name", "country"],
        others: &["since", "score"],
    },
    Table {
        name: "orders",
        key: &["customer_id", "id"],
        ints: &["customer_id", "id"],
        texts: &["note"],
        others: &["amount", "at"],
    },
    Table {
        name: "items",
        key: &["id"],
        ints: &["id", "order_id", "quantity"],
        texts: &["product"],
        others: &[],
    },
    Table { name: "countries", key: &["code"], ints: &[], texts: &["code", "title"], others: &[] },
    Table { name: "plain", key: &["id"], ints: &["id"], texts: &["word"], others: &[] },
    Table {
        name: "parts",
        key: &["customer_id", "id"],
        ints: &["customer_id", "id"],
        texts: &["note"],
        others: &["amount"],
    },
    Table { name: "wholes", key: &["note"], ints: &["least"], texts: &["note"], others: &["n"] },
];

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    pub(crate) fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A statement.
pub(crate) struct Query {
    pub(crate) sql: String,
    /// Its ORDER BY leaves nothing open.
    pub(crate) ordered: bool,
    /// Values of `$1`, `$2`, …
    pub(crate) parameters: Vec<String>,
}

/// The statement of a seed.
pub(crate) fn query(seed: u64) -> Query {
    let mut random = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let bound = random.chance(25);
    let mut maker =
        Maker { random: &mut random, aliases: 0, depth: 0, bound, parameters: Vec::new() };
    let (sql, ordered) = match maker.random.below(20) {
        0 => (maker.set_operation(), false),
        1 => (maker.with(), false),
        2 => (maker.window(), false),
        3 => (maker.grouping_sets(), false),
        4 => (maker.lateral(), false),
        5 => (maker.nested_sets(), true),
        6 => (maker.with_ties(), false),
        7 => (maker.ordered_aggregates(), false),
        8..12 => maker.shape(),
        _ => maker.select(),
    };
    Query { sql, ordered, parameters: maker.parameters }
}

pub(super) struct Source {
    pub(super) alias: String,
    pub(super) table: &'static Table,
}

pub(super) struct Maker<'a> {
    pub(super) random: &'a mut Random,
    aliases: usize,
    depth: usize,
    /// Some of its numbers are parameters.
    bound: bool,
    parameters: Vec<String>,
}

impl Maker<'_> {
    pub(super) fn source(&mut self) -> Source {
        self.aliases += 1;
        let table = &TABLES[self.random.below(TABLES.len())];
        Source { alias: format!("t{}", self.aliases), table }
    }

    pub(super) fn int(&mut self, sources: &[Source]) -> String {
        let with: Vec<&Source> = sources.iter().filter(|s| !s.table.ints.is_empty()).collect();
        if with.is_empty() || self.random.chance(10) {
            return self.random.below(12).to_string();
        }
        let source = with[self.random.below(with.len())];
        format!("{}.{}", source.alias, self.random.one(source.table.ints))
    }

    pub(super) fn text(&mut self, sources: &[Source]) -> String {
        let source = &sources[self.random.below(sources.len())];
        let column = format!("{}.{}", source.alias, self.random.one(source.table.texts));
        match self.random.below(6) {
            0 => format!("lower({column})"),
            1 => format!("coalesce({column}, 'none')"),
            _ => column,
        }
    }

    pub(super) fn any(&mut self, sources: &[Source]) -> String {
        let source = &sources[self.random.below(sources.len())];
        match self.random.below(4) {
            0 if !source.table.others.is_empty() => {
                format!("{}.{}", source.alias, self.random.one(source.table.others))
            }
            1 | 2 => self.int(sources),
            _ => self.text(sources),
        }
    }

    /// FROM with up to three tables; every kind of join.
    pub(super) fn from(&mut self) -> (String, Vec<Source>) {
        let mut sources = vec![self.source()];
        let mut sql = format!("{} {}", sources[0].table.name, sources[0].alias);
        for _ in 0..self.random.below(3) {
            let next = self.source();
            let kind = self.random.one(&[
                "JOIN",
                "JOIN",
                "LEFT JOIN",
                "RIGHT JOIN",
                "FULL JOIN",
                "CROSS JOIN",
            ]);
            sql.push_str(&format!(" {kind} {} {}", next.table.name, next.alias));
            let alone = [next];
            if kind != "CROSS JOIN" {
                // FULL JOIN wants a condition that can be hashed.
                let on = match self.random.below(3) {
                    0 => format!("{} = {}", self.column_text(&sources), self.column_text(&alone)),
                    _ if sources.iter().any(|s| !s.table.ints.is_empty())
                        && !alone[0].table.ints.is_empty() =>
                    {
                        format!("{} = {}", self.column_int(&sources), self.column_int(&alone))
                    }
                    _ => format!("{} = {}", self.column_text(&sources), self.column_text(&alone)),
                };
                sql.push_str(&format!(" ON {on}"));
            }
            sources.extend(alone);
        }
        (sql, sources)
    }

    fn column_int(&mut self, sources: &[Source]) -> String {
        let with: Vec<&Source> = sources.iter().filter(|s| !s.table.ints.is_empty()).collect();
        let source = with[self.random.below(with.len())];
        format!("{}.{}", source.alias, self.random.one(source.table.ints))
    }

    pub(super) fn column_text(&mut self, sources: &[Source]) -> String {
        let source = &sources[self.random.below(sources.len())];
        format!("{}.{}", source.alias, self.random.one(source.table.texts))
    }

    fn condition(&mut self, sources: &[Source]) -> String {
        let negate = if self.random.chance(10) { "NOT " } else { "" };
        let condition = match self.random.below(14) {
            0 => format!("{} = {}", self.int(sources), self.number(10)),
            1 => format!(
                "{} IN ({}, {}, NULL)",
                self.int(sources),
                self.random.below(9),
                self.random.below(9)
            ),
            2 => format!("{} > {}", self.int(sources), self.number(6)),
            3 => format!("{} IS NULL", self.any(sources)),
            4 => format!("{} LIKE '%a%'", self.text(sources)),
            5 => format!("({} OR {})", self.condition_flat(sources), self.condition_flat(sources)),
            6 => format!("{} IS DISTINCT FROM {}", self.int(sources), self.int(sources)),
            7 if self.depth < 2 => self.exists(sources),
            8 if self.depth < 2 => self.membership(sources),
            9 if self.depth < 2 => format!("{} >= ({})", self.int(sources), self.scalar(sources)),
            10 => format!("{} BETWEEN 1 AND 6", self.int(sources)),
            11 if self.depth < 2 => self.quantified(sources),
            12 => format!("{} = ANY (ARRAY[1, {}])", self.int(sources), self.number(8)),
            _ => format!("{} = {}", self.text(sources), self.text(sources)),
        };
        format!("{negate}{condition}")
    }

    pub(super) fn condition_flat(&mut self, sources: &[Source]) -> String {
        format!("{} = {}", self.int(sources), self.number(10))
    }

    /// A literal or a parameter.
    pub(super) fn number(&mut self, below: usize) -> String {
        let number = self.random.below(below).to_string();
        if !self.bound || self.random.chance(40) {
            return number;
        }
        self.parameters.push(number);
        format!("${}", self.parameters.len())
    }

    fn inner(&mut self) -> Source {
        self.depth += 1;
        self.source()
    }

    fn exists(&mut self, outer: &[Source]) -> String {
        let inner = [self.inner()];
        let link = match self.random.below(2) {
            0 if !inner[0].table.ints.is_empty() => {
                format!("{} = {}", self.column_int(&inner), self.int(outer))
            }
            _ => format!("{} = {}", self.column_text(&inner), self.text(outer)),
        };
        self.depth -= 1;
        let (name, alias) = (inner[0].table.name, &inner[0].alias);
        format!("EXISTS (SELECT 1 FROM {name} {alias} WHERE {link})")
    }

    fn membership(&mut self, outer: &[Source]) -> String {
        let inner = [self.inner()];
        let ints = !inner[0].table.ints.is_empty() && self.random.chance(50);
        let (left, right) = match ints {
            true => (self.int(outer), self.column_int(&inner)),
            false => (self.text(outer), self.column_text(&inner)),
        };
        let more = self.condition_flat(&inner);
        self.depth -= 1;
        let not = if self.random.chance(30) { "NOT " } else { "" };
        let (name, alias) = (inner[0].table.name, &inner[0].alias);
        format!("{left} {not}IN (SELECT {right} FROM {name} {alias} WHERE {more})")
    }

    /// Compared with each row of a query, or with rows of two columns.
    fn quantified(&mut self, outer: &[Source]) -> String {
        let inner = [self.inner()];
        let (value, text) = (self.int(&inner), self.column_text(&inner));
        let more = self.condition_flat(&inner);
        self.depth -= 1;
        let (name, alias) = (inner[0].table.name, &inner[0].alias);
        match self.random.below(3) {
            0 => format!("{} = ANY (SELECT {value} FROM {name} {alias})", self.int(outer)),
            1 => format!(
                "{} > ALL (SELECT {value} FROM {name} {alias} WHERE {more})",
                self.int(outer)
            ),
            _ => format!(
                "({}, {}) IN (SELECT {value}, {text} FROM {name} {alias})",
                self.int(outer),
                self.text(outer)
            ),
        }
    }

    fn scalar(&mut self, outer: &[Source]) -> String {
        let inner = [self.inner()];
        let value = self.int(&inner);
        let link = format!("{} = {}", self.column_text(&inner), self.text(outer));
        self.depth -= 1;
        let (name, alias) = (inner[0].table.name, &inner[0].alias);
        let function = self.random.one(&["min", "max", "count", "sum"]);
        format!("SELECT {function}({value}) FROM {name} {alias} WHERE {link}")
    }

    pub(super) fn filter(&mut self, sources: &[Source]) -> String {
        let count = self.random.below(3);
        let parts: Vec<String> = (0..count).map(|_| self.condition(sources)).collect();
        if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) }
    }

    pub(super) fn aggregate(&mut self, sources: &[Source]) -> String {
        let value = self.int(sources);
        let filter = match self.random.chance(15) {
            true => format!(" FILTER (WHERE {})", self.condition_flat(sources)),
            false => String::new(),
        };
        let call = match self.random.below(9) {
            0 => "count(*)".to_owned(),
            1 => format!("count({})", self.any(sources)),
            2 => format!("count(DISTINCT {})", self.any(sources)),
            3 => format!("sum({value})"),
            4 => format!("avg({value})"),
            5 => format!("min({})", self.any(sources)),
            6 => format!("max({})", self.any(sources)),
            7 => format!("bool_or({value} > 2)"),
            _ => format!("array_agg({value} ORDER BY {value})"),
        };
        format!("{call}{filter}")
    }

    fn select(&mut self) -> (String, bool) {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        match self.random.below(5) {
            0 => {
                let aggregates = [self.aggregate(&sources), self.aggregate(&sources)];
                (format!("SELECT {} FROM {from}{filter}", aggregates.join(", ")), false)
            }
            1 | 2 => {
                let key = self.any(&sources);
                let aggregate = self.aggregate(&sources);
                let having = match self.random.chance(25) {
                    true => " HAVING count(*) > 1",
                    false => "",
                };
                let group = match self.random.chance(10) {
                    true => format!("ROLLUP ({key})"),
                    false => key.clone(),
                };
                (
                    format!(
                        "SELECT {key}, {aggregate} FROM {from}{filter} GROUP BY {group}{having}"
                    ),
                    false,
                )
            }
            3 => {
                let distinct =
                    format!("SELECT DISTINCT {}, {}", self.any(&sources), self.any(&sources));
                let order = match self.random.chance(50) {
                    true => " ORDER BY 1 DESC NULLS LAST, 2 NULLS FIRST",
                    false => "",
                };
                let limit = match order.is_empty() {
                    true => String::new(),
                    false => {
                        format!(" LIMIT {} OFFSET {}", self.random.below(6), self.random.below(3))
                    }
                };
                (format!("{distinct} FROM {from}{filter}{order}{limit}"), !order.is_empty())
            }
            _ => {
                let items = [self.any(&sources), self.any(&sources), self.int(&sources)];
                let order = match self.random.chance(50) {
                    true => " ORDER BY 1 NULLS FIRST, 2 DESC, 3",
                    false => "",
                };
                let limit = match order.is_empty() {
                    true => String::new(),
                    false => format!(" LIMIT {}", self.random.below(8)),
                };
                let sql = format!("SELECT {} FROM {from}{filter}{order}{limit}", items.join(", "));
                (sql, !order.is_empty())
            }
        }
    }

    fn grouping_sets(&mut self) -> String {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        let (a, b) = (self.column_text(&sources), self.column_text(&sources));
        let aggregate = self.aggregate(&sources);
        let sets = match self.random.below(3) {
            0 => format!("GROUPING SETS (({a}, {b}), ({b}), ())"),
            1 => format!("CUBE ({a}, {b})"),
            _ => format!("{a}, ROLLUP ({b})"),
        };
        format!("SELECT {a}, {b}, grouping({b}), {aggregate} FROM {from}{filter} GROUP BY {sets}")
    }

    fn lateral(&mut self) -> String {
        let outer = [self.source()];
        let inner = [self.source()];
        let link = format!("{} = {}", self.column_text(&inner), self.text(&outer));
        let (value, shown) = (self.int(&inner), self.any(&outer));
        let join = self.random.one(&["CROSS JOIN LATERAL", "LEFT JOIN LATERAL"]);
        let on = if join.starts_with("LEFT") { " ON true" } else { "" };
        let (a, b) = (&outer[0], &inner[0]);
        format!(
            "SELECT {shown}, x.n, x.least FROM {} {} {join} (SELECT count(*) AS n, min({value}) AS \
             least FROM {} {} WHERE {link}) x{on}",
            a.table.name, a.alias, b.table.name, b.alias
        )
    }

    fn nested_sets(&mut self) -> String {
        let arms: Vec<String> = (0..3)
            .map(|_| {
                let (from, sources) = self.from();
                let filter = self.filter(&sources);
                let (text, int) = (self.text(&sources), self.int(&sources));
                format!("SELECT {text}, {int} FROM {from}{filter}")
            })
            .collect();
        let first = self.random.one(&["UNION ALL", "EXCEPT", "INTERSECT ALL"]);
        let second = self.random.one(&["UNION", "UNION ALL", "EXCEPT ALL", "INTERSECT"]);
        let limit = self.random.below(9);
        format!(
            "({} {first} {}) {second} ({}) ORDER BY 1 NULLS FIRST, 2 DESC LIMIT {limit}",
            arms[0], arms[1], arms[2]
        )
    }

    fn with_ties(&mut self) -> String {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        let (first, second) = (self.any(&sources), self.any(&sources));
        let rows = 1 + self.random.below(4);
        format!(
            "SELECT {first}, {second} FROM {from}{filter} ORDER BY 1 DESC NULLS LAST FETCH FIRST \
             {rows} ROWS WITH TIES"
        )
    }

    fn ordered_aggregates(&mut self) -> String {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        let (text, value) = (self.text(&sources), self.int(&sources));
        let call = match self.random.below(5) {
            0 => format!("string_agg({text}, ',' ORDER BY {text} DESC)"),
            1 => format!("array_agg(DISTINCT {value} ORDER BY {value})"),
            2 => format!("percentile_disc(0.5) WITHIN GROUP (ORDER BY {value})"),
            3 => format!("json_agg({text} ORDER BY {text})"),
            _ => format!("cardinality(array_agg({value}))"),
        };
        match self.random.chance(50) {
            true => format!("SELECT {call}, count({text}) FROM {from}{filter}"),
            false => {
                let key = self.any(&sources);
                format!("SELECT {key}, {call} FROM {from}{filter} GROUP BY {key}")
            }
        }
    }

    fn set_operation(&mut self) -> String {
        let mut arms = Vec::new();
        for _ in 0..2 {
            let (from, sources) = self.from();
            let filter = self.filter(&sources);
            arms.push(format!(
                "SELECT {}, {} FROM {from}{filter}",
                self.text(&sources),
                self.int(&sources)
            ));
        }
        let operator =
            self.random.one(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL"]);
        arms.join(&format!(" {operator} "))
    }

    fn with(&mut self) -> String {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        let cte = format!(
            "SELECT {} AS a, {} AS b FROM {from}{filter}",
            self.int(&sources),
            self.text(&sources)
        );
        let other = [self.source()];
        let link = format!("{} = w.b", self.column_text(&other));
        let (name, alias) = (other[0].table.name, &other[0].alias);
        let item = self.any(&other);
        format!(
            "WITH w AS ({cte}) SELECT w.a, w.b, {item} FROM w LEFT JOIN {name} {alias} ON {link}"
        )
    }

    fn window(&mut self) -> String {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        let (value, part) = (self.int(&sources), self.any(&sources));
        format!(
            "SELECT {part}, {value}, sum({value}) OVER (PARTITION BY {part}), count(*) OVER (), \
             rank() OVER (ORDER BY {value} NULLS LAST) FROM {from}{filter}"
        )
    }
}
