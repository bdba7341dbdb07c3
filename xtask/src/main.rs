//! Tasks of this repository: `cargo xtask ci`, `cargo xtask tidy`, `cargo xtask full`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use xtask::tidy;

const HELP: &str = "\
cargo xtask TASK
  ci      fmt, clippy, tidy, doc, deny, tests: what must pass before a change is merged
  tidy    the rules of the house that no other tool checks; prints the largest files and functions
  full    ci, then every test in release, slow ones included
";

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let passed = match task.as_str() {
        "ci" => ci(),
        "tidy" => run_tidy(),
        "full" => ci() && cargo("slow tests", &["test", "--workspace", "--release", "--", "--include-ignored"]),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Steps in order of how soon they fail; the first failure ends the run.
fn ci() -> bool {
    cargo("fmt", &["fmt", "--all", "--check"])
        && run_tidy()
        && cargo("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
        && cargo("doc", &["doc", "--workspace", "--no-deps"])
        && deny()
        && cargo("test", &["test", "--workspace"])
}

/// Licences, sources and duplicates. Advisories need the network, so they are not part of this.
fn deny() -> bool {
    let installed = Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|out| out.status.success());
    if !installed {
        println!("deny: skipped, cargo-deny is not installed (cargo install cargo-deny)");
        return true;
    }
    cargo("deny", &["deny", "--offline", "check", "licenses", "bans", "sources"])
}

fn run_tidy() -> bool {
    let start = Instant::now();
    match tidy::check(&root()) {
        Ok(report) => {
            print!("{report}");
            println!("tidy: {} problems, {:.1} s", report.problems.len(), start.elapsed().as_secs_f32());
            report.problems.is_empty()
        }
        Err(error) => {
            eprintln!("tidy: {error}");
            false
        }
    }
}

fn cargo(name: &str, arguments: &[&str]) -> bool {
    println!("{name}: cargo {}", arguments.join(" "));
    let start = Instant::now();
    let status = Command::new("cargo").args(arguments).current_dir(root()).env("RUSTDOCFLAGS", "-D warnings").status();
    let passed = status.is_ok_and(|status| status.success());
    println!("{name}: {} after {:.0} s", if passed { "passed" } else { "FAILED" }, start.elapsed().as_secs_f32());
    passed
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
