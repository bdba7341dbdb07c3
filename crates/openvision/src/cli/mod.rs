//! The command line: one table of options gives parsing, help and completions. Nothing is computed here.

mod bench;
mod caption;
mod classify;
mod common;
mod doctor;
mod drift;
mod embed;
mod eval;
#[cfg(feature = "fetch")]
mod fetch;
mod models;
mod rank;
mod report;

use clap::{CommandFactory, Parser, Subcommand};
use openvision::Error;
use std::process::ExitCode;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// All well.
    Done,
    /// Something that was looked at is wrong (`models verify`).
    NotOk,
    /// Finished, but some inputs failed.
    SomeFailed,
    /// Interrupted; finished work is kept.
    Interrupted,
}

impl Ending {
    fn code(self) -> u8 {
        match self {
            Ending::Done => 0,
            Ending::NotOk => 1,
            Ending::SomeFailed => 3,
            Ending::Interrupted => 130,
        }
    }
}

#[derive(Parser)]
#[command(
    name = "openvision",
    version,
    about = "Vision encoders in one program: pictures and texts to vectors, zero-shot classification, ranking",
    after_help = "Exit codes: 0 all well, 1 failed, 2 usage, 3 finished but some inputs failed, 130 interrupted.\n\
                  Nothing leaves this machine: only `models fetch` uses the network, to download what it is asked for."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List, fetch, show, verify, convert and create models
    #[command(subcommand)]
    Models(models::Models),
    /// Turn pictures and texts into vectors
    Embed(embed::Embed),
    /// Name what pictures show, by labels of your choice
    Classify(classify::Classify),
    /// Order pictures by a text or by another picture
    Rank(rank::Rank),
    /// Say what pictures show, in words; also into new shards
    Caption(caption::Captions),
    /// Measure how well models do on your own labelled pictures
    #[command(subcommand)]
    Eval(eval::Eval),
    /// Measure how fast a model runs on this machine
    Bench(bench::Bench),
    /// Say what this machine offers and what is wrong with it
    Doctor(doctor::Doctor),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Parses, runs, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Models(command) => command.run(),
        Command::Embed(command) => command.run(),
        Command::Classify(command) => command.run(),
        Command::Rank(command) => command.run(),
        Command::Caption(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "openvision", &mut std::io::stdout());
            Ok(Ending::Done)
        }
    };
    match outcome {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(Error::Stdout(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}
