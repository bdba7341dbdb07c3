//! Tasks of this repository: `cargo xtask ci`, `cargo xtask checks`, `cargo xtask tidy`, `cargo xtask full`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use xtask::tidy;

const HELP: &str = "\
cargo xtask TASK
  ci      checks, then tests: what must pass before a change is merged
  checks  fmt, tidy, clippy, doc, deny
  tidy    the rules of the house that no other tool checks; prints the largest files and functions
  full    ci, then every test in release, slow ones included
";

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let passed = match task.as_str() {
        "ci" => ci(),
        "checks" => checks(),
        "tidy" => run_tidy(),
        "full" => ci() && cargo("slow tests", &["test", "--workspace", "--release", "--", "--include-ignored"]),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ci() -> bool {
    checks() && cargo("test", &["test", "--workspace"])
}

/// Steps in order of how soon they fail; the first failure ends the run.
fn checks() -> bool {
    with_tool("fmt", "rustup component add rustfmt", &["fmt", "--all", "--check"])
        && run_tidy()
        && with_tool(
            "clippy",
            "rustup component add clippy",
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        )
        && cargo("doc", &["doc", "--workspace", "--no-deps"])
        // Advisories need the network, so they are not part of this.
        && with_tool(
            "deny",
            "cargo install cargo-deny",
            &["deny", "--offline", "check", "licenses", "bans", "sources"],
        )
}

/// A step by a tool that does not come with every Rust: where it is absent, a line says so.
fn with_tool(tool: &str, install: &str, arguments: &[&str]) -> bool {
    let installed = Command::new("cargo").args([tool, "--version"]).output().is_ok_and(|out| out.status.success());
    if !installed {
        println!("skipped: {tool}: cargo-{tool} is not installed ({install})");
        return true;
    }
    cargo(tool, arguments)
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
