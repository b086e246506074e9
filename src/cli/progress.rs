//! Progress bars, on a terminal only.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};

use diskdelta::text::escape;
use diskdelta::{Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// One bar for each phase, one after the other.
pub struct Bars {
    shown: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    pub fn new(quiet: bool) -> Self {
        Bars {
            shown: !quiet && std::io::stderr().is_terminal(),
            bar: Mutex::new(None),
        }
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        if let Some(bar) = self.lock().take() {
            bar.finish_and_clear();
        }
    }

    /// Prints a line on standard error, above the bar, with what a terminal would obey escaped.
    pub fn say(&self, text: &str) {
        let text = escape(text);
        match &*self.lock() {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
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
        let bar = match total_bytes {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let template = match total_bytes {
            Some(_) => BAR,
            None => SPINNER,
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name(phase));
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

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Sample => "sampling",
        Phase::Hash => "hashing",
        Phase::Diff => "comparing",
        Phase::Copy => "copying",
        Phase::Apply => "applying",
        Phase::Verify => "verifying",
        _ => "working",
    }
}

const BAR: &str = "{prefix:>9} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
const SPINNER: &str = "{prefix:>9} {spinner} {bytes} {binary_bytes_per_sec}";
