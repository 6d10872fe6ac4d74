//! Shapes of a whole statement that `query` makes by the way only: stars, names given and hidden,
//! sorting by what is selected, FROM with queries in it, recursion, frames.

use super::query::{Maker, Source};

impl Maker<'_> {
    /// One of them, and whether its ORDER BY leaves nothing open.
    pub(super) fn shape(&mut self) -> (String, bool) {
        match self.random.below(10) {
            0 | 1 => self.star(),
            2 => (self.distinct_on(), true),
            3 => (self.query_in_from(), false),
            4 => (self.using(), false),
            5 => (self.renamed(), false),
            6 => (self.recursive(), false),
            7 => (self.labelled(), true),
            8 => (self.twice(), false),
            _ => (self.frame(), false),
        }
    }

    /// Rows of one table, as they are, in an order that is certain.
    fn star(&mut self) -> (String, bool) {
        let source = self.source();
        let table = source.table;
        let columns: Vec<&str> = [table.ints, table.texts, table.others].concat();
        let named = self.random.chance(60);
        let (from, called) = match (named, self.random.chance(30)) {
            (true, _) => (format!("{} {}", table.name, source.alias), source.alias.clone()),
            (false, true) => (format!("public.{}", table.name), format!("public.{}", table.name)),
            (false, false) => (table.name.to_owned(), table.name.to_owned()),
        };
        let sort = self.random.one(&columns);
        let prefix = if self.random.chance(50) { String::new() } else { format!("{called}.") };
        let direction = self.random.one(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        let keys: Vec<String> = table.key.iter().map(|key| format!("{prefix}{key}")).collect();
        let order = format!(" ORDER BY {prefix}{sort}{direction}, {}", keys.join(", "));
        let items = match self.random.below(6) {
            0 | 1 => "*".to_owned(),
            2 => format!("{called}.*"),
            3 => columns.join(", "),
            4 => format!("{sort}, {}", table.key.join(", ")),
            _ => format!("{called}.*, {}", self.random.one(&columns)),
        };
        // A name that is selected twice is none to sort by.
        let twice = items.contains(".*, ") && prefix.is_empty();
        let order = if twice { String::new() } else { order };
        let sources = [Source { alias: called, table }];
        let filter = self.filter(&sources);
        let limit = match (order.is_empty(), self.random.below(3)) {
            (true, _) | (false, 0) => String::new(),
            (false, 1) => format!(" LIMIT {}", self.number(6)),
            _ => format!(
                " OFFSET {} FETCH FIRST {} ROWS ONLY",
                self.random.below(4),
                1 + self.random.below(4)
            ),
        };
        let ordered = !order.is_empty();
        (format!("SELECT {items} FROM {from}{filter}{order}{limit}"), ordered)
    }

    fn distinct_on(&mut self) -> String {
        let sources = [self.source()];
        let filter = self.filter(&sources);
        let (on, shown) = (self.column_text(&sources), self.any(&sources));
        let (table, alias) = (sources[0].table, &sources[0].alias);
        let keys: Vec<String> = table.key.iter().map(|key| format!("{alias}.{key} DESC")).collect();
        format!(
            "SELECT DISTINCT ON ({on}) {on} AS first, {shown} AS second FROM {} {alias}{filter} \
             ORDER BY {on} NULLS FIRST, {}",
            table.name,
            keys.join(", ")
        )
    }

    /// Queries in FROM, joined and grouped.
    fn query_in_from(&mut self) -> String {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        let (int, text) = (self.int(&sources), self.text(&sources));
        let inner = match self.random.below(3) {
            0 => format!("SELECT {int} AS a, {text} AS b FROM {from}{filter}"),
            1 => format!("SELECT DISTINCT {int} AS a, {text} AS b FROM {from}{filter}"),
            _ => {
                format!("SELECT count({int}) AS a, {text} AS b FROM {from}{filter} GROUP BY {text}")
            }
        };
        let other = [self.source()];
        let link = format!("{} = s.b", self.column_text(&other));
        let shown = self.any(&other);
        let (name, alias) = (other[0].table.name, &other[0].alias);
        match self.random.below(3) {
            0 => format!("SELECT s.*, {shown} FROM ({inner}) s JOIN {name} {alias} ON {link}"),
            1 => format!(
                "SELECT b, sum(a), count(*) FROM ({inner}) AS s WHERE a IS NOT NULL GROUP BY b"
            ),
            _ => format!(
                "SELECT {shown}, max(s.a) FROM {name} {alias} LEFT JOIN ({inner}) s ON {link} GROUP \
                 BY {shown}"
            ),
        }
    }

    /// Columns that two tables share.
    fn using(&mut self) -> String {
        let (left, right, column) = match self.random.below(6) {
            0 => ("customers", "orders", "id"),
            1 => ("orders", "parts", "customer_id"),
            2 => ("parts", "orders", "customer_id, id"),
            3 => ("items", "plain", "id"),
            4 => ("orders", "wholes", "note"),
            _ => ("customers", "items", "id"),
        };
        let kind = self.random.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let first = column.split(", ").last().unwrap_or(column);
        let filter = match self.random.chance(40) {
            true => format!(" WHERE {first} IS NOT NULL"),
            false => String::new(),
        };
        match self.random.below(4) {
            0 => format!("SELECT * FROM {left} {kind} {right} USING ({column}){filter}"),
            1 => {
                format!("SELECT {first}, r.* FROM {left} {kind} {right} r USING ({column}){filter}")
            }
            2 => format!(
                "SELECT {first}, count(*) FROM {left} {kind} {right} USING ({column}){filter} GROUP \
                 BY {first}"
            ),
            _ => format!(
                "SELECT count(*), count({first}) FROM ({left} {kind} {right} USING ({column})) \
                 CROSS JOIN (SELECT word FROM plain) p{filter}"
            ),
        }
    }

    /// `t AS x (a, b)`: the first columns have other names.
    fn renamed(&mut self) -> String {
        let source = self.source();
        let (name, alias) = (source.table.name, &source.alias);
        match self.random.below(4) {
            0 => format!("SELECT * FROM {name} AS {alias} (a, b)"),
            1 => format!("SELECT a, count(*) FROM {name} {alias} (a) GROUP BY a"),
            2 => {
                let other = [self.source()];
                let link = format!("{}::text = {alias}.a::text", self.column_text(&other));
                let (of, as_of) = (other[0].table.name, &other[0].alias);
                format!(
                    "SELECT {alias}.a, {as_of}.* FROM {name} {alias} (a, b) JOIN {of} {as_of} ON {link}"
                )
            }
            _ => format!("SELECT max(b::text), min(a::text) FROM {name} {alias} (a, b)"),
        }
    }

    fn recursive(&mut self) -> String {
        let sources = [self.source()];
        let (name, alias) = (sources[0].table.name, &sources[0].alias);
        let shown = self.any(&sources);
        let (start, link) = (self.number(3), self.int(&sources));
        match self.random.below(2) {
            0 => format!(
                "WITH RECURSIVE r (n) AS (SELECT {start}::int UNION ALL SELECT n + 1 FROM r WHERE n \
                 < 6) SELECT r.n, {shown} FROM r LEFT JOIN {name} {alias} ON {link} = r.n"
            ),
            _ => format!(
                "WITH RECURSIVE r AS (SELECT id, order_id FROM items WHERE id = {start} UNION SELECT \
                 i.id, i.order_id FROM items i JOIN r ON r.id = i.order_id) SELECT r.*, {shown} FROM \
                 r LEFT JOIN {name} {alias} ON {link} = r.order_id"
            ),
        }
    }

    /// Groups by a label, a position, an expression; sorted by one.
    fn labelled(&mut self) -> String {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        let (text, condition) = (self.text(&sources), self.condition_flat(&sources));
        let expression = match self.random.below(3) {
            0 => format!("CASE WHEN {condition} THEN {text} ELSE 'other' END"),
            1 => format!("coalesce({text}, '-') || '!'"),
            _ => format!("length({text}) % 2"),
        };
        let aggregate = self.aggregate(&sources);
        let (group, order) = match self.random.below(3) {
            0 => ("made".to_owned(), "made NULLS FIRST"),
            1 => ("1".to_owned(), "1 DESC NULLS LAST"),
            _ => (expression.clone(), "made"),
        };
        let limit = match self.random.chance(40) {
            true => format!(" LIMIT {}", self.random.below(5)),
            false => String::new(),
        };
        format!(
            "SELECT {expression} AS made, {aggregate} AS folded FROM {from}{filter} GROUP BY {group} \
             ORDER BY {order}{limit}"
        )
    }

    /// One WITH query, read twice.
    fn twice(&mut self) -> String {
        let (from, sources) = self.from();
        let filter = self.filter(&sources);
        let kept = self.random.one(&["", "MATERIALIZED ", "NOT MATERIALIZED "]);
        let (int, text) = (self.int(&sources), self.text(&sources));
        let tail = self.random.one(&[
            "SELECT count(*), count(w.b) FROM w JOIN w x ON x.a = w.a",
            "SELECT b, a FROM w UNION SELECT b, a + 1 FROM w",
            "SELECT a, b FROM w WHERE a >= (SELECT avg(a) FROM w)",
            "SELECT b, (SELECT count(*) FROM w x WHERE x.b = w.b) FROM w",
        ]);
        format!("WITH w AS {kept}(SELECT {int} AS a, {text} AS b FROM {from}{filter}) {tail}")
    }

    fn frame(&mut self) -> String {
        let sources = [self.source()];
        let filter = self.filter(&sources);
        let (value, part) = (self.int(&sources), self.any(&sources));
        let (table, alias) = (sources[0].table, &sources[0].alias);
        let keys: Vec<String> = table.key.iter().map(|key| format!("{alias}.{key}")).collect();
        let frame = self.random.one(&[
            "",
            " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
            " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING",
            " GROUPS 1 PRECEDING EXCLUDE CURRENT ROW",
        ]);
        let call = self.random.one(&["sum", "max", "first_value", "lag"]);
        format!(
            "SELECT {keys}, {call}({value}) OVER w, row_number() OVER w FROM {} {alias}{filter} \
             WINDOW w AS (PARTITION BY {part} ORDER BY {keys}{frame})",
            table.name,
            keys = keys.join(", ")
        )
    }
}
