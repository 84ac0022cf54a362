//! Everything that is written to standard output, and the status line on standard error. The only place that
//! writes to either; colours only where a person looks.

use std::io::{self, Write};

use crate::{surroundings::Surroundings, table::Table};

/// How a piece of text is to stand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Good,
    Bad,
    Warn,
    Accent,
}

impl Style {
    fn sgr(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Accent => "36",
        }
    }
}

/// Standard output, with a status line below it while something is awaited.
#[derive(Debug)]
pub(crate) struct Term {
    colour: bool,
    live: bool,
    /// Columns, where standard output is a terminal.
    pub width: Option<usize>,
    status: String,
}

impl Term {
    pub(crate) fn new(around: &Surroundings) -> Self {
        Self {
            colour: around.colour,
            live: around.stderr_tty,
            width: around.width,
            status: String::new(),
        }
    }

    /// `text` in that style, or as it is where nobody looks.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", style.sgr()) } else { text.to_owned() }
    }

    /// Writes one line; the status line moves below it.
    ///
    /// # Errors
    /// Standard output is closed; [`crate::failure::Failure`] makes a closed pipe quiet.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wipe();
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()?;
        self.draw();
        Ok(())
    }

    /// Writes a value as one line of JSON.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// Writes a table, its heading standing out.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) fn table(&mut self, table: &Table) -> io::Result<()> {
        for (i, line) in table.lines(self.width).iter().enumerate() {
            let line = if i == 0 { self.paint(Style::Bold, line) } else { line.clone() };
            self.line(&line)?;
        }
        Ok(())
    }

    /// Writes one line to standard error, for what is not the command's product.
    pub(crate) fn note(&mut self, text: &str) {
        self.wipe();
        // With standard error gone there is nobody to tell.
        let _ = writeln!(io::stderr(), "{text}");
        self.draw();
    }

    /// Replaces the status line; nothing happens where standard error is no terminal.
    pub(crate) fn status(&mut self, text: &str) {
        if self.live && self.status != text {
            self.wipe();
            text.clone_into(&mut self.status);
            self.draw();
        }
    }

    /// Takes the status line away.
    pub(crate) fn end_status(&mut self) {
        self.wipe();
        self.status.clear();
    }

    fn wipe(&self) {
        if !self.status.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }

    fn draw(&self) {
        if !self.status.is_empty() {
            // Never wider than the terminal: a wrapped line could not be wiped.
            let room = self.width.unwrap_or(80).saturating_sub(1);
            let shown: String = self.status.chars().take(room).collect();
            let _ = write!(io::stderr(), "{shown}");
            let _ = io::stderr().flush();
        }
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.wipe();
    }
}
