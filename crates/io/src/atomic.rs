//! Files that appear whole or not at all: written under a temporary name in the same folder, synced, renamed.
//! Not a lock: two writers of one path both succeed and the later rename wins.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a file could not be written. Nothing is left under the final name that was not there before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The path has no file name (`/`, `..`).
    #[error("cannot write {}: it does not end in a file name", path.display())]
    NoFileName {
        /// What was asked for.
        path: PathBuf,
    },
    /// The temporary file could not be made: folder absent or not writable.
    #[error("cannot create a file in the folder of {}: {source}", path.display())]
    Create {
        /// The final path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk, or the user's quota on it, is full.
    #[error("cannot write {}: no space is left on the disk (or in your quota); nothing was kept", path.display())]
    DiskFull {
        /// The final path.
        path: PathBuf,
    },
    /// Writing or syncing failed for another reason.
    #[error("cannot write {}: {source}; nothing was kept", path.display())]
    Write {
        /// The final path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The finished file could not be moved to its name (a folder has that name, for example).
    #[error("cannot move the finished file to {}: {source}", path.display())]
    Rename {
        /// The final path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl WriteError {
    /// Wraps a failed write, telling a full disk from the rest.
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Write { path: path.to_owned(), source },
        }
    }
}

/// A file under a temporary name. [`AtomicFile::commit`] gives it its name; dropping it instead removes it.
#[derive(Debug)]
pub struct AtomicFile {
    /// Some until commit or drop.
    file: Option<File>,
    temporary: PathBuf,
    target: PathBuf,
}

/// Tells temporaries of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

impl AtomicFile {
    /// Creates an empty temporary file beside `target`, named `.NAME.PID-N.tmp`. A symbolic link at `target` is
    /// replaced, not followed.
    pub fn create(target: &Path) -> Result<Self, WriteError> {
        let Some(name) = target.file_name() else {
            return Err(WriteError::NoFileName { path: target.to_owned() });
        };
        loop {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let mut temporary_name = std::ffi::OsString::from(".");
            temporary_name.push(name);
            temporary_name.push(format!(".{}-{n}.tmp", std::process::id()));
            let temporary = target.with_file_name(temporary_name);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(Self { file: Some(file), temporary, target: target.to_owned() }),
                // Left over from a killed process that had our id: take the next number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(WriteError::Create { path: target.to_owned(), source }),
            }
        }
    }

    /// The final path.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Runs `write` on the open file and tells a full disk from other errors.
    pub fn write_with(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), WriteError> {
        let file = self.file.as_mut().ok_or_else(|| WriteError::Write {
            path: self.target.clone(),
            source: io::Error::other("the file is already closed"),
        })?;
        write(file).map_err(|e| WriteError::from_io(&self.target, e))
    }

    /// Syncs the data, renames, and syncs the folder so that the name survives a power cut too.
    pub fn commit(mut self) -> Result<(), WriteError> {
        self.write_with(|file| file.sync_all())?;
        // Closed before the rename: Windows refuses to move an open file.
        self.file = None;
        if let Err(source) = fs::rename(&self.temporary, &self.target) {
            let _ = fs::remove_file(&self.temporary);
            return Err(WriteError::Rename { path: self.target.clone(), source });
        }
        sync_folder_of(&self.target).map_err(|e| WriteError::from_io(&self.target, e))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nothing better can be done in a drop than to try.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `path` whole or not at all: `write` gets the temporary file; if it fails, what was at `path` stays.
///
/// # Errors
/// Every step that can fail has its [`WriteError`]; the temporary file is removed in each case.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), WriteError> {
    let mut file = AtomicFile::create(path)?;
    file.write_with(write)?;
    file.commit()
}

/// Makes a rename in the folder of `path` durable. Only Unix lets a folder be opened for that.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("openvision-atomic-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failed_write_keeps_what_was_there() {
        let folder = folder("keep");
        let path = folder.join("a");
        write_atomic(&path, |file| file.write_all(b"one")).unwrap();
        let failed = write_atomic(&path, |file| {
            file.write_all(b"tw")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(matches!(failed, Err(WriteError::DiskFull { .. })));
        let failed = write_atomic(&path, |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(matches!(failed, Err(WriteError::Write { .. })));
        assert_eq!((names(&folder), fs::read(&path).unwrap()), (vec!["a".to_owned()], b"one".to_vec()));
        write_atomic(&path, |file| file.write_all(b"two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_panic_while_writing_leaves_nothing() {
        let folder = folder("panic");
        let path = folder.join("a");
        let result = std::panic::catch_unwind(|| write_atomic(&path, |_| panic!("in the middle")));
        assert!(result.is_err());
        assert!(names(&folder).is_empty());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn paths_that_name_no_file_are_refused() {
        assert!(matches!(write_atomic(Path::new("/"), |_| Ok(())), Err(WriteError::NoFileName { .. })));
        let absent = std::env::temp_dir().join("openvision-absent-folder/a");
        assert!(matches!(write_atomic(&absent, |_| Ok(())), Err(WriteError::Create { .. })));
    }

    #[test]
    fn two_writers_of_one_name_both_succeed() {
        let folder = folder("two");
        let path = folder.join("a");
        let mut first = AtomicFile::create(&path).unwrap();
        let mut second = AtomicFile::create(&path).unwrap();
        first.write_with(|file| file.write_all(b"first")).unwrap();
        second.write_with(|file| file.write_all(b"second")).unwrap();
        second.commit().unwrap();
        first.commit().unwrap();
        assert_eq!((names(&folder), fs::read(&path).unwrap()), (vec!["a".to_owned()], b"first".to_vec()));
        fs::remove_dir_all(folder).unwrap();
    }
}
