//! What goes to standard output and standard error: lines, JSON, failures, progress.

use super::Ending;
use super::common::Common;
use indicatif::{ProgressBar, ProgressStyle};
use openvision::Error;
use openvision::interrupt::Interrupt;
use openvision::pictures::ItemError;
use serde_json::{Value, json};
use std::io::{BufWriter, IsTerminal, Stdout, Write};

/// A line on standard output. A reader that has enough (`| head`) ends the command, not with a panic.
pub(crate) fn say(text: impl std::fmt::Display) -> Result<(), Error> {
    writeln!(std::io::stdout(), "{text}").map_err(Error::Stdout)
}

/// The voice of a command.
pub(crate) struct Report {
    out: BufWriter<Stdout>,
    json: bool,
    bar: ProgressBar,
    failed: usize,
}

impl Report {
    /// A report on `total` inputs; progress shows on a terminal only.
    pub(crate) fn new(common: &Common, total: usize) -> Self {
        let bar = if common.quiet || !std::io::stderr().is_terminal() || total < 2 {
            ProgressBar::hidden()
        } else {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {per_sec}  {eta} left");
            ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        };
        Self { out: BufWriter::new(std::io::stdout()), json: common.json, bar, failed: 0 }
    }

    /// One input is done.
    pub(crate) fn tick(&self) {
        self.bar.inc(1);
    }

    /// A line of results, given out at once: what was computed survives whatever ends the program.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> Result<(), Error> {
        let written = self.bar.suspend(|| {
            writeln!(self.out, "{text}")?;
            self.out.flush()
        });
        written.map_err(Error::Stdout)
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A line of JSON.
    pub(crate) fn object(&mut self, value: &Value) -> Result<(), Error> {
        self.line(value)
    }

    /// An input failed: on standard error, and as JSON where that is spoken.
    pub(crate) fn failure(&mut self, input: &str, error: &ItemError) -> Result<(), Error> {
        self.failed(input, error.code(), &error.to_string())
    }

    /// As [`Report::failure`], with a code and a message.
    pub(crate) fn failed(&mut self, input: &str, code: &str, message: &str) -> Result<(), Error> {
        self.failed += 1;
        self.bar.suspend(|| eprintln!("error: {message}"));
        if self.json {
            self.object(&json!({ "input": input, "error": { "code": code, "message": message } }))?;
        }
        Ok(())
    }

    /// A remark for people.
    pub(crate) fn remark(&self, text: impl std::fmt::Display) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Flushes, and says how the command ended.
    pub(crate) fn finish(mut self, interrupt: &Interrupt) -> Result<Ending, Error> {
        self.bar.finish_and_clear();
        self.out.flush().map_err(Error::Stdout)?;
        Ok(match (interrupt.is_set(), self.failed) {
            (true, _) => Ending::Interrupted,
            (false, 0) => Ending::Done,
            (false, failed) => {
                eprintln!("{failed} input(s) failed; all others are complete");
                Ending::SomeFailed
            }
        })
    }
}
