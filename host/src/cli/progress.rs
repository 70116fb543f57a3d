//! Steps of long operations on stderr: a spinner on a terminal, lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use ramet::Progress;
use std::{
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

/// Shows the steps of one operation until it is dropped.
pub(crate) struct Shown {
    pub(crate) progress: Progress,
    bar: Option<ProgressBar>,
}

/// Begins to show progress.
pub(crate) fn show() -> Shown {
    let begin = Instant::now();
    if !stderr().is_terminal() {
        let lines = move |step: &str| eprintln!("[{:6.1} s] {step}", begin.elapsed().as_secs_f64());
        return Shown { progress: Progress::new(lines), bar: None };
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let shown = bar.clone();
    Shown { progress: Progress::new(move |step: &str| shown.set_message(step.to_owned())), bar: Some(bar) }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
