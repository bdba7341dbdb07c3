//! From arguments to a list of files: files, folders, patterns, lists on standard input.

use crate::Error;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Endings of files that are taken from folders; files named one by one are always taken.
const PICTURE_ENDINGS: [&str; 9] = ["jpg", "jpeg", "jpe", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Longest list on standard input.
const LONGEST_LIST: u64 = 1 << 30;

/// Expands arguments, in order. A folder gives its pictures, recursively and sorted by path; `-` reads a list of
/// paths, one a line or separated by NUL. What does not exist stays in the list, so that it is reported like any
/// other broken input.
///
/// # Errors
/// Standard input cannot be read, a folder cannot be listed, or nothing at all was found.
pub fn expand(arguments: &[String], nul_separated: bool) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for argument in arguments {
        if argument == "-" {
            for path in standard_input(nul_separated)? {
                one(&path, &mut files)?;
            }
        } else {
            one(argument, &mut files)?;
        }
    }
    if files.is_empty() {
        let looked = if arguments.is_empty() { "no inputs were given".into() } else { arguments.join(", ") };
        return Err(Error::Usage(format!("no pictures found: {looked}")));
    }
    Ok(files)
}

fn standard_input(nul_separated: bool) -> Result<Vec<String>, Error> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(LONGEST_LIST).read_to_end(&mut bytes).map_err(Error::Stdin)?;
    let separator = if nul_separated { 0 } else { b'\n' };
    let text = |part: &[u8]| String::from_utf8_lossy(part.strip_suffix(b"\r").unwrap_or(part)).into_owned();
    Ok(bytes.split(|b| *b == separator).filter(|part| !part.is_empty()).map(text).collect())
}

fn one(argument: &str, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let path = Path::new(argument);
    if path.is_dir() {
        return folder(path, files);
    }
    if !path.exists() && argument.contains(['*', '?', '[']) {
        let pattern = glob::glob(argument).map_err(|e| Error::Usage(format!("pattern '{argument}': {e}")))?;
        for found in pattern {
            let found = found.map_err(|e| Error::File { path: e.path().into(), source: e.into() })?;
            if found.is_dir() { folder(&found, files)? } else { files.push(found) }
        }
        return Ok(());
    }
    files.push(path.to_path_buf());
    Ok(())
}

fn folder(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let is_picture = |path: &Path| {
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        ending.is_some_and(|ending| PICTURE_ENDINGS.contains(&ending.as_str()))
    };
    for entry in walkdir::WalkDir::new(path).follow_links(true).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_picture(entry.path()) => files.push(entry.into_path()),
            Ok(_) => {}
            // A loop of links or a folder without permission: named, and the rest goes on.
            Err(error) => {
                eprintln!("warning: {error}");
            }
        }
    }
    Ok(())
}

/// Lines of a file (or of standard input for `-`), empty ones left out.
///
/// # Errors
/// It cannot be read or is not UTF-8.
pub fn lines(path: &str) -> Result<Vec<String>, Error> {
    let text = if path == "-" {
        std::io::read_to_string(std::io::stdin().lock().take(LONGEST_LIST)).map_err(Error::Stdin)?
    } else {
        std::fs::read_to_string(path).map_err(Error::file(path))?
    };
    Ok(text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_patterns_and_named_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        for name in ["b.JPG", "a.png", "notes.txt", "sub/c.webp"] {
            std::fs::write(at(name), b"x").unwrap();
        }
        let names = |arguments: &[String]| -> Vec<String> {
            let files = expand(arguments, false).unwrap();
            files.iter().map(|f| f.strip_prefix(folder.path()).unwrap().display().to_string()).collect()
        };
        let root = folder.path().display().to_string();
        assert_eq!(names(std::slice::from_ref(&root)), ["a.png", "b.JPG", "sub/c.webp"]);
        assert_eq!(names(&[format!("{root}/*.txt"), format!("{root}/missing.jpg")]), ["notes.txt", "missing.jpg"]);
        assert!(expand(&[format!("{root}/*.gif")], false).is_err());
    }
}
