//! Statements over many rows at once, `… values ($1, $2), ($3, $4) …`, in a few sizes each, so that a database
//! prepares every text once. Rows that are missing to the next size are sent as nulls and match nothing.

use std::sync::OnceLock;

/// For how many rows there is a text. The widest statement has 33 columns: its 4,224 parameters at most are far
/// below what a database takes, 32,766 on `SQLite`.
const SIZES: [usize; 14] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];

/// The most rows of one statement; more are sent in several.
pub(crate) const MAX_ROWS: usize = SIZES[SIZES.len() - 1];

/// One statement in all its sizes.
#[derive(Debug)]
pub(crate) struct Values {
    before: &'static str,
    columns: usize,
    after: &'static str,
    texts: [OnceLock<&'static str>; SIZES.len()],
}

impl Values {
    /// `before` and `after` stand around the list of rows, each of so many columns. The first column of a row
    /// that is only there to fill up is null, and the statement has to pass it over.
    pub(crate) const fn new(before: &'static str, columns: usize, after: &'static str) -> Self {
        Self { before, columns, after, texts: [const { OnceLock::new() }; SIZES.len()] }
    }

    /// The text for at most [`MAX_ROWS`] rows, and how many rows have to be bound.
    pub(crate) fn text(&self, rows: usize) -> (&'static str, usize) {
        let at = SIZES.partition_point(|size| *size < rows).min(SIZES.len() - 1);
        // As many are leaked as there are sizes, once in the life of the process.
        let text = self.texts[at].get_or_init(|| self.write(SIZES[at]).leak());
        (text, SIZES[at])
    }

    fn write(&self, rows: usize) -> String {
        let mut text = String::from(self.before);
        let mut nth = 0;
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..self.columns {
                nth += 1;
                text.push_str(if column == 0 { "$" } else { ", $" });
                text.push_str(&nth.to_string());
            }
            text.push(')');
        }
        text.push_str(self.after);
        text
    }
}

/// Sends rows through a [`Values`] statement, whichever driver it is, in as many statements as it takes. The
/// binding body is given `None` for a row that only fills up. Gives the rows affected.
macro_rules! send_values {
    ($tx:expr, $values:expr, $rows:expr, |$query:ident, $row:ident| $bind:expr) => {{
        let mut affected = 0;
        for chunk in $rows.chunks($crate::store::values::MAX_ROWS) {
            let (text, size) = $values.text(chunk.len());
            affected += $crate::store::on_tx!($tx, |db| {
                let mut $query = sqlx::query(text);
                for nth in 0..size {
                    let $row = chunk.get(nth);
                    $query = $bind;
                }
                $query.execute(db).await.map(|done| done.rows_affected())
            })?;
        }
        affected
    }};
}
pub(crate) use send_values;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_sizes_serve_every_number_of_rows() {
        let values = Values::new("with v(a, b) as (values ", 2, ") select 1");
        assert_eq!(values.text(2), ("with v(a, b) as (values ($1, $2), ($3, $4)) select 1", 2));
        assert_eq!(values.text(5).1, 6);
        for rows in 1..=MAX_ROWS {
            let (text, size) = values.text(rows);
            assert!(rows <= size && size <= rows * 3 / 2 + 1);
            assert!(text.contains(&format!("${}", size * 2)));
            assert!(std::ptr::eq(text, values.text(size).0));
        }
    }
}
