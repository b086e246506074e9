//! Progress bars, on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Phase;
use crate::progress::Progress;
use crate::text::escape;
use indicatif::{
    BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
    TermLike,
};

use super::print::print_error_line;

/// One bar for each phase, one after the other.
pub(super) struct Bars {
    shown: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    pub(super) fn new(quiet: bool) -> Self {
        Bars {
            shown: !quiet && std::io::stderr().is_terminal(),
            bar: Mutex::new(None),
        }
    }

    /// Takes the bar off the screen.
    pub(super) fn clear(&self) {
        if let Some(bar) = self.lock().take() {
            bar.finish_and_clear();
        }
    }

    /// Prints a line on standard error, above the bar, with what a terminal would obey escaped.
    pub(super) fn say(&self, text: &str) {
        let text = escape(text);
        match &*self.lock() {
            Some(bar) => bar.suspend(|| print_error_line(&text)),
            None => print_error_line(&text),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bars {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        if !self.shown {
            return;
        }
        self.clear();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(Screen), DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(total_bytes, target);
        if let Ok(style) = ProgressStyle::with_template("{line}") {
            let phase = name(phase);
            let write = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                write_line(phase, state, out);
            };
            bar.set_style(style.with_key("line", write));
        }
        *self.lock() = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.lock() {
            bar.inc(bytes);
        }
    }

    fn note(&self, text: &str) {
        if self.shown {
            self.say(text);
        }
    }
}

/// Bars, with all notes kept, so that they can be printed where no bars are shown.
pub(super) struct Notes {
    bars: Arc<Bars>,
    notes: Mutex<Vec<String>>,
}

impl Notes {
    pub(super) fn over(bars: Arc<Bars>) -> Self {
        Notes {
            bars,
            notes: Mutex::default(),
        }
    }

    /// What was noted since the last time.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress for Notes {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        self.bars.begin(phase, total_bytes);
    }

    fn advance(&self, bytes: u64) {
        self.bars.advance(bytes);
    }

    fn note(&self, text: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(text.to_owned());
    }
}

/// The terminal of standard error. Its width counts also where its height is not known.
#[derive(Debug)]
struct Screen;

impl Screen {
    /// Moves the cursor `count` times, by the letter of the sequence that does.
    fn go(count: usize, letter: char) -> io::Result<()> {
        match count {
            0 => Ok(()),
            _ => write!(io::stderr(), "\x1b[{count}{letter}"),
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        #[cfg(unix)]
        if let Ok(size) = rustix::termios::tcgetwinsize(io::stderr())
            && size.ws_col > 0
        {
            return size.ws_col;
        }
        USUAL_WIDTH
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        Screen::go(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        Screen::go(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        Screen::go(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        Screen::go(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stderr(), "{text}")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        write!(io::stderr(), "{text}")
    }

    fn clear_line(&self) -> io::Result<()> {
        write!(io::stderr(), "\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Sample => "sampling",
        Phase::Hash => "hashing",
        Phase::Diff => "comparing",
        Phase::Copy => "copying",
        Phase::Apply => "applying",
        Phase::Verify => "verifying",
    }
}

/// Writes the line of a bar, no longer than the terminal is wide now.
fn write_line(phase: &str, state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let width = usize::from(Screen.width());
    let rate = format!("{}/s", BinaryBytes(state.per_sec() as u64));
    let bytes = BinaryBytes(state.pos());
    let line = match state.len() {
        Some(total) => line(
            width,
            phase,
            Some(state.fraction()),
            &[
                format!("{bytes}/{}", BinaryBytes(total)),
                rate,
                HumanDuration(state.eta()).to_string(),
            ],
        ),
        None => line(width, phase, None, &[bytes.to_string(), rate]),
    };
    // It goes to memory first.
    let _ = out.write_str(&line);
}

/// The phase and as many of `parts` as fit into a line of `width`, and a bar where there is room.
fn line(width: usize, phase: &str, fraction: Option<f32>, parts: &[String]) -> String {
    // The last column stays free: a full line makes some terminals go to the next one.
    let width = width.saturating_sub(1);
    let mut text = String::new();
    for part in parts {
        if phase.len() + text.len() + 1 + part.len() > width {
            break;
        }
        text.push(' ');
        text.push_str(part);
    }
    if phase.len() > width {
        return String::new();
    }
    let room = width
        .saturating_sub(phase.len() + text.len() + 3)
        .min(BAR_WIDTH);
    let Some(fraction) = fraction.filter(|_| room >= BAR_LEAST) else {
        return format!("{phase}{text}");
    };
    // Between 0 and the bar's width.
    let full = (fraction.clamp(0.0, 1.0) * room as f32) as usize;
    format!(
        "{phase} [{}{}]{text}",
        "#".repeat(full),
        "-".repeat(room - full)
    )
}

const USUAL_WIDTH: u16 = 80;
const DRAWS_PER_SECOND: u8 = 20;
const BAR_WIDTH: usize = 30;
const BAR_LEAST: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_any_width_and_says_the_most_that_does() {
        let parts = ["1.00 GiB/2.00 TiB", "120 MiB/s", "4 minutes"].map(str::to_owned);
        for width in 0..200 {
            let text = line(width, "hashing", Some(0.5), &parts);
            assert!(text.len() < width.max(1), "{width}: {text}");
            assert_eq!(text.contains("TiB"), width > 25, "{width}: {text}");
            assert_eq!(text.contains("minutes"), width > 45, "{width}: {text}");
        }
        let wide = line(80, "hashing", Some(0.5), &parts);
        assert!(wide.starts_with("hashing [###############-"), "{wide}");
        assert_eq!(
            line(30, "working", None, &parts[1..]),
            "working 120 MiB/s 4 minutes"
        );
    }
}
