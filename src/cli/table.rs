//! Tables with a head that fit the terminal: where there is no room, columns are shortened or left
//! out.

use std::io::IsTerminal;

/// Blanks between two columns.
const GAP: usize = 2;
/// No terminal is taken for narrower.
const NARROWEST: usize = 40;

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    head: &'static str,
    cells: Vec<String>,
    /// Shorter cells, for where there is no room.
    short: Option<Vec<String>>,
    right: bool,
    /// The columns with the smallest number go first.
    goes: Option<u8>,
}

impl Column {
    /// A column with this head.
    pub(super) fn new(head: &'static str, cells: Vec<String>) -> Column {
        Column { head, cells, short: None, right: false, goes: None }
    }

    /// Its cells end at its right, as numbers do.
    pub(super) fn right(self) -> Column {
        Column { right: true, ..self }
    }

    /// It may be left out, those with lower numbers first.
    pub(super) fn may_go(self, order: u8) -> Column {
        Column { goes: Some(order), ..self }
    }

    /// Cells for where there is little room.
    pub(super) fn or(self, short: Vec<String>) -> Column {
        Column { short: Some(short), ..self }
    }

    fn width(&self) -> usize {
        self.cells
            .iter()
            .map(|cell| cell.chars().count())
            .chain([self.head.len()])
            .max()
            .unwrap_or_default()
    }
}

/// A table.
#[derive(Debug)]
pub(super) struct Table(Vec<Column>);

impl Table {
    /// Of these columns, which have as many cells each.
    pub(super) fn new(columns: Vec<Column>) -> Table {
        Table(columns)
    }

    /// In lines of at most this width, as far as that can be; nothing where there are no rows.
    pub(super) fn fit(mut self, width: Option<usize>) -> String {
        if self.0.iter().all(|column| column.cells.is_empty()) {
            return String::new();
        }
        if let Some(width) = width {
            self.shorten(width);
            while self.width() > width {
                let first = self
                    .0
                    .iter()
                    .enumerate()
                    .filter_map(|(index, column)| Some((column.goes?, index)))
                    .min();
                let Some((_, index)) = first else { break };
                self.0.remove(index);
            }
        }
        let rows = self.0.iter().map(|column| column.cells.len()).max().unwrap_or_default();
        let mut text = self.line(|column| column.head);
        for row in 0..rows {
            text += &self.line(|column| column.cells.get(row).map_or("", String::as_str));
        }
        text
    }

    fn shorten(&mut self, width: usize) {
        if self.width() > width {
            for column in &mut self.0 {
                if let Some(short) = column.short.take() {
                    column.cells = short;
                }
            }
        }
    }

    fn width(&self) -> usize {
        self.0.iter().map(Column::width).sum::<usize>() + GAP * self.0.len().saturating_sub(1)
    }

    fn line<'a>(&'a self, cell: impl Fn(&'a Column) -> &'a str) -> String {
        let mut text = String::new();
        for (index, column) in self.0.iter().enumerate() {
            let (cell, width) = (cell(column), column.width());
            text += &match column.right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            };
            if index + 1 < self.0.len() {
                text += &" ".repeat(GAP);
            }
        }
        text.trim_end().to_owned() + "\n"
    }
}

/// The width of the terminal that is printed to; none where it is none.
pub(super) fn terminal_width() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col).max(NARROWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let cells =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Table::new(vec![
            Column::new("A", cells(&["x", "yy"])),
            Column::new("N", cells(&["1", "200"])).right().may_go(2),
            Column::new("M", cells(&["1", "2"])).may_go(1),
            Column::new("P", cells(&["/a/long/path", "/b"])).or(cells(&["path", "b"])),
        ])
    }

    #[test]
    fn columns_are_shortened_and_then_left_out() {
        assert_eq!(table().fit(None), "A     N  M  P\nx     1  1  /a/long/path\nyy  200  2  /b\n");
        assert_eq!(table().fit(Some(16)), "A     N  M  P\nx     1  1  path\nyy  200  2  b\n");
        assert_eq!(table().fit(Some(14)), "A     N  P\nx     1  path\nyy  200  b\n");
        assert_eq!(table().fit(Some(3)), "A   P\nx   path\nyy  b\n");
        assert_eq!(Table::new(vec![Column::new("A", Vec::new())]).fit(None), "");
    }
}
