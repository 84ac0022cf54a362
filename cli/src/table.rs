//! Small tables: a heading and rows, columns as wide as their widest cell. Pure.

use crate::text::{printable, shorten};

/// Between two columns.
const GAP: &str = "  ";

/// Rows under a heading. Cells are made safe for a terminal here.
#[derive(Debug)]
pub(crate) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// `cells` must be as many as the heading has.
    pub(crate) fn row(&mut self, cells: &[String]) {
        debug_assert_eq!(cells.len(), self.heading.len(), "a row has the heading's columns");
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The lines, heading first. With `width`, the last column is cut so that no line is wider; without it
    /// (a pipe) nothing is cut.
    pub(crate) fn lines(&self, width: Option<usize>) -> Vec<String> {
        let all: Vec<&Vec<String>> = std::iter::once(&self.heading).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|i| all.iter().map(|row| row[i].chars().count()).max().unwrap_or(0))
            .collect();
        all.into_iter().map(|row| line(row, &widths, width)).collect()
    }
}

fn line(row: &[String], widths: &[usize], width: Option<usize>) -> String {
    let padded: Vec<String> =
        row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    let line = padded.join(GAP);
    let line = line.trim_end();
    width.map_or_else(|| line.to_owned(), |width| shorten(line, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_only_a_terminal_cuts() {
        let mut table = Table::new(&["ID", "STATE", "TITLE"]);
        table.row(&["1".into(), "QUEUED".into(), "short".into()]);
        table.row(&["22".into(), "INPROGRESS".into(), "a title that is long\x1b".into()]);
        let expected = [
            "ID  STATE       TITLE",
            "1   QUEUED      short",
            "22  INPROGRESS  a title that is long␛",
        ];
        assert_eq!(table.lines(None), expected);
        assert_eq!(table.lines(Some(24))[2], "22  INPROGRESS  a title…");
    }
}
