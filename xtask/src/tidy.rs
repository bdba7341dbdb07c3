//! The rules of the house that no other tool checks: headers, sizes, unsafe code, direction of dependencies, paths of a
//! developer's machine, ignored tests, dead links, unfinished code. Fast enough to run on every save.
use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::source::{Function, blank, functions, line_of, words};

/// Lines of a file before its tests.
const LONGEST_FILE: usize = 800;
/// Lines of a function.
const LONGEST_FUNCTION: usize = 100;
/// Exempts a pure table from the limits: in the first lines of a file, or above a function.
const TABLE_MARK: &str = "// tidy: table";
/// A crate may depend on crates of lower rank only.
const RANKS: [(&str, u32); 7] =
    [("kernels", 0), ("tensor", 1), ("io", 1), ("index", 1), ("model", 2), ("train", 3), ("openvision", 4)];
/// Folders of home and work that must not be in the repository. Written in halves, so that this file passes.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// A file of the repository.
pub struct SourceFile {
    /// From the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// From the root.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// What a check found.
#[derive(Default)]
pub struct Report {
    /// Broken rules.
    pub problems: Vec<Problem>,
    /// Rust files by lines before their tests, largest first: (lines, path).
    pub files: Vec<(usize, String)>,
    /// Functions by lines, largest first: (lines, path and name).
    pub functions: Vec<(usize, String)>,
}

/// Checks the repository at `root`.
///
/// # Errors
/// If git cannot list its files.
pub fn check(root: &Path) -> Result<Report, String> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(arguments).current_dir(root).output().map_err(|e| format!("git: {e}"))?;
    if !listed.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr)));
    }
    let names = String::from_utf8_lossy(&listed.stdout);
    let is_text =
        |name: &&str| [".rs", ".md", ".toml", ".py", ".json", ".sh", ".yml"].iter().any(|end| name.ends_with(end));
    let read = |name: &str| {
        // A file that is listed but deleted, or not UTF-8, is nobody's source.
        std::fs::read_to_string(root.join(name)).ok().map(|text| SourceFile { path: name.to_owned(), text })
    };
    let files: Vec<SourceFile> = names.split('\0').filter(is_text).filter_map(read).collect();
    Ok(check_files(&files, &|path| root.join(path).exists()))
}

/// Checks files; `exists` tells of other paths from the root.
pub fn check_files(files: &[SourceFile], exists: &dyn Fn(&str) -> bool) -> Report {
    let mut report = Report::default();
    for file in files {
        check_machine_paths(file, &mut report);
        if file.path.ends_with(".rs") {
            check_rust(file, &mut report);
        } else if file.path.ends_with("Cargo.toml") {
            check_dependencies(file, &mut report);
        } else if file.path.ends_with(".md") {
            check_links(file, exists, &mut report);
        }
    }
    report.files.sort_by(|a, b| b.cmp(a));
    report.functions.sort_by(|a, b| b.cmp(a));
    report
}

fn check_rust(file: &SourceFile, report: &mut Report) {
    let code = blank(&file.text);
    if !file.text.starts_with("//!") {
        report.add(file, 1, "the first line must be `//!` and say what the file is for".into());
    }
    check_sizes(file, &code, report);
    check_unsafe(file, &code, report);
    for unfinished in ["todo", "unimplemented"] {
        for at in words(&code, unfinished).into_iter().filter(|at| code[at + unfinished.len()..].starts_with('!')) {
            report.add(file, line_of(&code, at), format!("`{unfinished}!` is not finished code"));
        }
    }
    for (at, _) in code.match_indices("#[ignore]") {
        report.add(file, line_of(&code, at), "an ignored test needs a reason: `#[ignore = \"...\"]`".into());
    }
}

fn check_sizes(file: &SourceFile, code: &str, report: &mut Report) {
    let lines: Vec<&str> = file.text.lines().collect();
    let is_table = lines.iter().take(12).any(|line| line.trim() == TABLE_MARK);
    let length = lines.iter().position(|line| *line == "#[cfg(test)]").unwrap_or(lines.len());
    if is_table {
        return;
    }
    // Integration tests are tests from their first line on.
    let is_test = file.path.contains("/tests/");
    if length > LONGEST_FILE && !is_test {
        report.add(
            file,
            LONGEST_FILE,
            format!("{length} lines before the tests, the limit is {LONGEST_FILE}: split the file"),
        );
    }
    report.files.push((length, file.path.clone()));
    for function in functions(code) {
        let length = function.last_line - function.first_line + 1;
        if is_table_function(&lines, &function) {
            continue;
        }
        if length > LONGEST_FUNCTION {
            let message = format!("`{}` has {length} lines, the limit is {LONGEST_FUNCTION}", function.name);
            report.add(file, function.first_line, message);
        }
        report.functions.push((length, format!("{} {}", file.path, function.name)));
    }
}

/// Whether the comments and attributes right above the function hold the mark.
fn is_table_function(lines: &[&str], function: &Function) -> bool {
    let above = lines[..function.first_line - 1].iter().rev().map(|line| line.trim());
    above.take_while(|line| line.starts_with("//") || line.starts_with("#[")).any(|line| line == TABLE_MARK)
}

fn check_unsafe(file: &SourceFile, code: &str, report: &mut Report) {
    if file.path.starts_with("crates/kernels/") || file.path.starts_with("fuzz/") {
        return;
    }
    for at in words(code, "unsafe") {
        report.add(file, line_of(code, at), "unsafe code belongs into crates/kernels".into());
    }
    let is_root = ["/src/lib.rs", "/src/main.rs"].iter().any(|end| file.path.ends_with(end));
    if is_root && !code.contains("#![forbid(unsafe_code)]") {
        report.add(file, 1, "this crate must say `#![forbid(unsafe_code)]`".into());
    }
}

/// Reads `openvision-NAME` keys of all dependency tables; no more of TOML is needed for that.
fn check_dependencies(file: &SourceFile, report: &mut Report) {
    let rank = |name: &str| RANKS.iter().find(|(known, _)| *known == name).map(|&(_, rank)| rank);
    let Some(crate_name) = file.path.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml")) else {
        return;
    };
    let Some(own_rank) = rank(crate_name) else {
        report.add(file, 1, "a new crate needs a rank in xtask/src/tidy.rs and a paragraph in ARCHITECTURE.md".into());
        return;
    };
    let mut in_dependencies = false;
    for (at, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
            // `[dependencies.openvision-io]`
            let named = line.trim_end_matches(']').rsplit('.').next().unwrap_or("");
            check_dependency(file, (at + 1, own_rank), named, report);
        } else if in_dependencies {
            let named = line.split(['=', '.', ' ']).next().unwrap_or("");
            check_dependency(file, (at + 1, own_rank), named, report);
        }
    }
}

fn check_dependency(file: &SourceFile, (line, own_rank): (usize, u32), package: &str, report: &mut Report) {
    let name = match package {
        "openvision" => package,
        _ => match package.strip_prefix("openvision-") {
            Some(name) => name,
            None => return,
        },
    };
    let rank = RANKS.iter().find(|(known, _)| *known == name).map(|&(_, rank)| rank);
    if rank.is_none_or(|rank| rank >= own_rank) {
        let order = "kernels <- tensor, io, index <- model <- train <- openvision";
        report.add(file, line, format!("must not depend on {package}: {order}"));
    }
}

fn check_machine_paths(file: &SourceFile, report: &mut Report) {
    for (at, line) in file.text.lines().enumerate() {
        for path in MACHINE_PATHS {
            // `target/work/x` is no such path.
            let begins = |at: usize| {
                !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-/}~*".contains(c))
            };
            if line.match_indices(path).any(|(at, _)| begins(at)) {
                report.add(file, at + 1, format!("`{path}...` is a path of one machine"));
            }
        }
    }
}

/// Links of Markdown files to files; `#` parts and addresses are not followed.
fn check_links(file: &SourceFile, exists: &dyn Fn(&str) -> bool, report: &mut Report) {
    let mut in_code = false;
    for (at, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in link_targets(line) {
            let path = target.split('#').next().unwrap_or("");
            let is_address = target.contains("://") || target.starts_with("mailto:");
            if !path.is_empty() && !is_address && !exists(&resolve(&file.path, path)) {
                report.add(file, at + 1, format!("dead link: {target}"));
            }
        }
    }
}

/// `x` of each `](x)` or `](x "title")` outside of inline code.
fn link_targets(line: &str) -> Vec<&str> {
    let outside = |at: usize| line[..at].matches('`').count().is_multiple_of(2);
    let links = line.match_indices("](").filter(|(at, _)| outside(*at));
    links.filter_map(|(at, _)| line[at + 2..].split([')', ' ']).next()).collect()
}

/// A link's path from the root.
fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Report {
    fn add(&mut self, file: &SourceFile, line: usize, message: String) {
        self.problems.push(Problem { path: file.path.clone(), line, message });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{}:{}: {}", problem.path, problem.line, problem.message)?;
        }
        let total: usize = self.files.iter().map(|(lines, _)| lines).sum();
        writeln!(f, "tidy: {} Rust files, {total} lines without tests; largest:", self.files.len())?;
        for (lines, path) in self.files.iter().take(5) {
            writeln!(f, "{lines:6}  {path}")?;
        }
        writeln!(f, "tidy: {} functions; largest:", self.functions.len())?;
        for (lines, name) in self.functions.iter().take(5) {
            writeln!(f, "{lines:6}  {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages for one file in a repository that also has `docs/there.md`.
    fn messages(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile { path: path.into(), text: text.into() };
        let report = check_files(&[file], &|path| path == "docs/there.md");
        report.problems.into_iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect()
    }

    fn assert_one(path: &str, text: &str, start: &str) {
        let found = messages(path, text);
        assert!(found.len() == 1 && found[0].starts_with(start), "{path}: {found:?}");
    }

    #[test]
    fn good_code_passes() {
        let text =
            "//! A file.\n#![forbid(unsafe_code)]\n// unsafe, todo!()\nfn a() -> &'static str { \"unsafe todo!()\" }\n";
        assert_eq!(messages("crates/io/src/lib.rs", text), [""; 0]);
        assert_eq!(messages("crates/kernels/src/a.rs", "//! A.\nunsafe fn a() {}\n"), [""; 0]);
        assert_eq!(messages("crates/io/src/a.rs", "//! A.\n#[ignore = \"slow\"]\nfn a() {}\n"), [""; 0]);
    }

    #[test]
    fn rules_of_rust_files() {
        for (text, start) in [
            ("fn a() {}\n", "1: the first line"),
            ("//! A.\nunsafe fn a() {}\n", "2: unsafe"),
            ("//! A.\nfn a() { todo!() }\n", "2: `todo!`"),
            ("//! A.\n\n#[test]\n#[ignore]\nfn a() {}\n", "4: an ignored test"),
        ] {
            assert_one("crates/io/src/a.rs", text, start);
        }
        assert_one("crates/io/src/lib.rs", "//! A.\n", "1: this crate must say");
    }

    #[test]
    fn sizes() {
        let lines = |count: usize| "// x\n".repeat(count);
        assert_one("a.rs", &format!("//! A.\n{}", lines(800)), "800: 801 lines");
        assert_eq!(messages("crates/io/tests/a.rs", &format!("//! A.\n{}", lines(900))), [""; 0]);
        assert_eq!(messages("a.rs", &format!("//! A.\n{}#[cfg(test)]\n{}", lines(799), lines(100))), [""; 0]);
        assert_eq!(messages("a.rs", &format!("//! A.\n// tidy: table\n{}", lines(900))), [""; 0]);
        assert_one("a.rs", &format!("//! A.\nfn long() {{\n{}}}\n", lines(99)), "2: `long` has 101 lines");
        assert_eq!(
            messages("a.rs", &format!("//! A.\n// tidy: table\n#[inline]\nfn long() {{\n{}}}\n", lines(99))),
            [""; 0]
        );
        let marked_late = format!("//! A.\n{}// tidy: table\nfn long() {{\n{}}}\n", lines(20), lines(99));
        assert_eq!(messages("a.rs", &marked_late), [""; 0]);
    }

    #[test]
    fn dependencies_point_one_way() {
        let manifest = |name: &str| format!("[dependencies]\n{name}.workspace = true\nserde = \"1\"\n");
        assert_eq!(messages("crates/model/Cargo.toml", &manifest("openvision-io")), [""; 0]);
        assert_one("crates/io/Cargo.toml", &manifest("openvision-model"), "2: must not depend on openvision-model");
        assert_one("crates/io/Cargo.toml", &manifest("openvision-tensor"), "2: must not depend on");
        assert_one("crates/train/Cargo.toml", &manifest("openvision"), "2: must not depend on openvision:");
        assert_one("crates/io/Cargo.toml", "[dev-dependencies.openvision-model]\npath = \"x\"\n", "1: must not");
        assert_one("crates/new/Cargo.toml", "", "1: a new crate");
    }

    #[test]
    fn machine_paths() {
        let text = concat!("a\n see ", "/ho", "me/me/x\n");
        assert_one("docs/a.md", text, "2: `");
        assert_eq!(messages("docs/a.md", concat!("target", "/wo", "rk/x ", "~/ho", "me/\n")), [""; 0]);
    }

    #[test]
    fn links() {
        let text = "[a](there.md#b) [b](https://x.y) [c](#d) `[e](gone)`\n```\n[f](gone)\n```\n";
        assert_eq!(messages("docs/a.md", text), [""; 0]);
        assert_eq!(messages("README.md", "[a](docs/there.md \"title\")\n"), [""; 0]);
        assert_one("docs/deep/a.md", "[a](../there.md) [b](gone.md)\n", "1: dead link: gone.md");
    }

    /// The repository itself.
    #[test]
    fn this_repository_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository");
        let start = std::time::Instant::now();
        match check(root) {
            Ok(report) => assert!(report.problems.is_empty(), "\n{report}"),
            Err(error) => println!("skipped: {error}"),
        }
        assert!(start.elapsed().as_secs() < 2 || cfg!(debug_assertions), "{:?}", start.elapsed());
    }
}
