//! Every command in README.md and docs/ runs, in order, as a reader would type it.

use crate::support::testdata;
use std::path::Path;
use std::process::Command;

/// Lines of the `sh` blocks of a page.
fn commands(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            // Building and testing the repository itself is what runs this test.
            other
                if other.starts_with("cargo test")
                    || other.starts_with("cargo xtask")
                    || other.starts_with("cargo +") => {}
            other if inside => lines.push(other.replace("cargo run --release --", "openvision")),
            _ => {}
        }
    }
    lines
}

#[cfg(unix)]
#[test]
fn every_command_of_the_pages_runs() {
    let root = testdata().parent().unwrap().to_path_buf();
    let mut pages: Vec<_> = std::fs::read_dir(root.join("docs")).unwrap().map(|e| e.unwrap().path()).collect();
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let program = Path::new(env!("CARGO_BIN_EXE_openvision")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut run = 0;
    for page in pages.iter().filter(|page| page.extension().is_some_and(|e| e == "md")) {
        let lines = commands(page);
        if lines.is_empty() {
            continue;
        }
        run += lines.len();
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(testdata(), folder.path().join("testdata")).unwrap();
        let script = format!("set -euo pipefail\n{}", lines.join("\n"));
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env_remove("OPENVISION_MODEL")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}:\n{script}\n{stderr}", page.display());
    }
    assert!(run > 20, "{run} commands were found");
}
