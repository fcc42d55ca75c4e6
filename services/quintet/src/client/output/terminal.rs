//! Text with colours for the terminal: how lines are cut to a width, written, and drawn over.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crossterm::cursor::MoveUp;
use crossterm::queue;
use crossterm::style::{Attribute, Color, Print, SetAttribute, SetForegroundColor};
use crossterm::terminal::{Clear, ClearType};
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

/// Columns of what is printed to something that is no terminal.
const COLUMNS: u16 = 120;

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const DIM: Style = Style::new().fg(ratatui::style::Color::DarkGray);
pub(crate) const GOOD: Style = Style::new().fg(ratatui::style::Color::Green);
pub(crate) const BAD: Style = Style::new().fg(ratatui::style::Color::Red);
pub(crate) const BUSY: Style = Style::new().fg(ratatui::style::Color::Cyan);
pub(crate) const CARE: Style = Style::new().fg(ratatui::style::Color::Yellow);
pub(crate) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// How wide a text is in a terminal.
pub(crate) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Rows and columns of the terminal, if there is one.
pub(crate) fn terminal() -> Option<(u16, u16)> {
    use std::io::IsTerminal;
    if !io::stdout().is_terminal() {
        return None;
    }
    let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
    Some((rows.max(8), columns.max(20)))
}

/// Columns for what is printed once.
pub(crate) fn columns() -> u16 {
    terminal().map_or(COLUMNS, |(_, columns)| columns)
}

/// Prints lines once: with colours to a terminal, plainly to anything else.
pub(crate) fn print_lines(lines: &[Line<'_>]) -> io::Result<()> {
    if terminal().is_none() {
        for line in lines {
            crate::cli::stdout::print(plain(line, COLUMNS));
        }
        return Ok(());
    }
    let mut out = Vec::new();
    for line in lines {
        colored(&mut out, line, columns())?;
        queue!(out, Print("\r\n"))?;
    }
    crate::cli::stdout::print_bytes(&out);
    Ok(())
}

/// A place at the end of the terminal that is drawn over.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    drawn: u16,
}

impl Screen {
    /// Draws lines in the place of those that were drawn before; all of them must fit.
    pub(crate) fn draw(&mut self, lines: &[Line<'_>], columns: u16) -> io::Result<()> {
        let mut out = Vec::new();
        // What is typed meanwhile, such as Ctrl-C, is echoed and moves the cursor along.
        queue!(out, Print('\r'))?;
        if self.drawn > 0 {
            queue!(out, MoveUp(self.drawn))?;
        }
        for line in lines {
            // The last column stays free: a terminal that wraps there would count another row.
            colored(&mut out, line, columns.saturating_sub(1))?;
            queue!(out, Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        self.drawn = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let mut terminal = io::stdout().lock();
        terminal.write_all(&out)?;
        terminal.flush()
    }
}

/// A line at the end of the terminal that shows progress; nothing where there is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    screen: Option<Screen>,
    began: Instant,
}

impl Progress {
    /// Time between two redraws that are due.
    pub(crate) const INTERVAL: Duration = Duration::from_millis(120);
    const SPINNER: [char; 8] = ['⣾', '⣽', '⣻', '⢿', '⡿', '⣟', '⣯', '⣷'];

    /// A line that is drawn if it may be visible.
    pub(crate) fn new(visible: bool) -> Self {
        Self {
            screen: (visible && terminal().is_some()).then(Screen::default),
            began: Instant::now(),
        }
    }

    /// Draws the line: how long it has taken, and a text.
    pub(crate) fn draw(&mut self, text: &str) -> io::Result<()> {
        let elapsed = self.began.elapsed();
        let step = elapsed.as_millis() / Self::INTERVAL.as_millis();
        let spinner = Self::SPINNER[usize::try_from(step).unwrap_or(0) % Self::SPINNER.len()];
        let seconds = elapsed.as_secs();
        let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
        let line = format!(
            "{spinner} {hours:02}:{minutes:02}:{:02} {text}",
            seconds % 60
        );
        self.redraw(&[Line::raw(line)])
    }

    /// Prints a line that stays, above the one that is drawn.
    pub(crate) fn print(&mut self, line: String) -> io::Result<()> {
        self.redraw(&[Line::raw(line)])?;
        if let Some(screen) = &mut self.screen {
            screen.drawn = 0;
        }
        Ok(())
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.redraw(&[])
    }

    fn redraw(&mut self, lines: &[Line<'_>]) -> io::Result<()> {
        match (&mut self.screen, terminal()) {
            (Some(screen), Some((_, columns))) => screen.draw(lines, columns),
            (_, None) | (None, _) => Ok(()),
        }
    }
}

/// The cells of a line that fit; what controls a terminal is not among them.
fn cells(line: &Line<'_>, columns: u16) -> Vec<Cell> {
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, 1));
    let (end, _) = buffer.set_line(0, 0, line, columns);
    let mut cells = Vec::new();
    let mut at = 0;
    while let Some(cell) = buffer.content.get(usize::from(at)).filter(|_| at < end) {
        cells.push(cell.clone());
        // A wide letter stands in two columns, the second of which holds nothing.
        at += u16::try_from(width(cell.symbol())).unwrap_or(1).max(1);
    }
    cells
}

/// A line as it reads without colours.
pub(crate) fn plain(line: &Line<'_>, columns: u16) -> String {
    let text: String = cells(line, columns).iter().map(Cell::symbol).collect();
    text.trim_end().to_owned()
}

fn colored(out: &mut Vec<u8>, line: &Line<'_>, columns: u16) -> io::Result<()> {
    let mut look = (Cell::EMPTY.fg, false);
    for cell in cells(line, columns) {
        let wanted = (cell.fg, cell.modifier.contains(Modifier::BOLD));
        if wanted != look {
            look = wanted;
            let weight = if wanted.1 {
                Attribute::Bold
            } else {
                Attribute::NormalIntensity
            };
            // With NO_COLOR the colour is written as a reset of everything: it comes first.
            queue!(
                out,
                SetForegroundColor(color(wanted.0)),
                SetAttribute(weight)
            )?;
        }
        queue!(out, Print(cell.symbol()))?;
    }
    queue!(
        out,
        SetAttribute(Attribute::Reset),
        SetForegroundColor(Color::Reset)
    )
}

/// Our few colours as the terminal has them; `NO_COLOR` is heeded where they are written.
fn color(color: ratatui::style::Color) -> Color {
    use ratatui::style::Color as Ours;
    match color {
        Ours::DarkGray => Color::DarkGrey,
        Ours::Green => Color::DarkGreen,
        Ours::Red => Color::DarkRed,
        Ours::Cyan => Color::DarkCyan,
        Ours::Yellow => Color::DarkYellow,
        _ => Color::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_its_columns_and_cannot_steer_the_terminal() {
        let line = Line::from(vec![
            Span::raw("a\u{1b}[2J\rb"),
            Span::styled("言葉c", GOOD),
        ]);
        assert_eq!(plain(&line, 80), "a[2Jb言葉c");
        assert_eq!(plain(&line, 7), "a[2Jb言");
        assert_eq!(plain(&line, 8), "a[2Jb言");
    }

    #[test]
    fn colours_are_written_once_and_end_with_the_line() {
        let line = Line::from(vec![Span::raw("a"), Span::styled("bc", GOOD)]);
        let mut out = Vec::new();
        colored(&mut out, &line, 80).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("bc") && text.starts_with('a'), "{text:?}");
    }
}
