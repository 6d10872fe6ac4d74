//! Tables that are aligned on a terminal and are Markdown at the same time.

/// Columns with a heading; the first `left` ones hold words, the others numbers.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<String>,
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(left: usize, headings: impl IntoIterator<Item = S>) -> Self {
        Self { headings: headings.into_iter().map(Into::into).collect(), left, rows: Vec::new() }
    }

    /// Cells that are missing at the end stay empty; surplus ones are a mistake of the caller.
    pub(crate) fn row(&mut self, mut cells: Vec<String>) {
        debug_assert!(cells.len() <= self.headings.len(), "a cell without a column");
        cells.resize(self.headings.len(), String::new());
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| width(&row[column]));
                cells.chain([width(&self.headings[column]), 2]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                let space = " ".repeat(width.saturating_sub(self::width(cell)));
                if column < self.left { format!("{cell}{space}") } else { format!("{space}{cell}") }
            });
            format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
        };
        let rule = widths.iter().enumerate().map(|(column, width)| {
            if column < self.left {
                "-".repeat(width + 2)
            } else {
                format!("{}:", "-".repeat(width + 1))
            }
        });
        let mut text = line(&self.headings);
        text.push_str(&format!("|{}|\n", rule.collect::<Vec<_>>().join("|")));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A number with about three significant digits; a dash for none.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 99.95 => format!("{value:.0}"),
        Some(value) if value.abs() >= 9.995 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Table::new(1, ["case", "tps"]);
        table.row(vec!["select".to_owned(), "12345".to_owned()]);
        table.row(vec!["µ".to_owned(), "7".to_owned()]);
        assert_eq!(
            table.render(),
            "| case   |   tps |\n\
             |--------|------:|\n\
             | select | 12345 |\n\
             | µ      |     7 |\n"
        );
    }

    #[test]
    fn a_short_row_is_filled_up() {
        let mut table = Table::new(1, ["a", "b"]);
        table.row(vec!["x".to_owned()]);
        assert_eq!(table.render(), "| a  |  b |\n|----|---:|\n| x  |    |\n");
    }

    #[test]
    fn numbers_have_about_three_digits() {
        assert_eq!(number(Some(12345.6)), "12346");
        assert_eq!(number(Some(99.96)), "100");
        assert_eq!(number(Some(12.34)), "12.3");
        assert_eq!(number(Some(9.999)), "10.0");
        assert_eq!(number(Some(1.234)), "1.23");
        assert_eq!(number(None), "–");
    }
}
