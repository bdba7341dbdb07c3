//! The hub client's cache on disk: `models--ORG--NAME/{blobs,snapshots,refs}` and `.locks`. A blob gets its name when it is
//! whole and verified; `refs/REVISION` is written when all files are there.

use super::client::Remote;
use super::{Event, HubError, nap};
use crate::interrupt::Interrupt;
use openvision_io::atomic::{WriteError, write_atomic};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder of one repository.
pub(super) struct Repository {
    root: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub(super) fn new(cache: &Path, hub_id: &str) -> Self {
        let name = format!("models--{}", hub_id.replace('/', "--"));
        Self { root: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where a blob grows, also from one run to the next.
    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Whether the whole file is here.
    pub(super) fn has(&self, remote: &Remote) -> bool {
        fs::metadata(self.blob(&remote.etag)).is_ok_and(|data| data.is_file() && data.len() == remote.size)
    }

    /// Bytes of the file that are here already.
    pub(super) fn bytes_here(&self, remote: &Remote) -> u64 {
        if self.has(remote) {
            return remote.size;
        }
        fs::metadata(self.partial(&remote.etag)).map_or(0, |data| if data.len() > remote.size { 0 } else { data.len() })
    }

    /// Makes the folders that a download needs.
    pub(super) fn prepare(&self) -> Result<(), HubError> {
        for folder in [self.root.join("blobs"), self.locks.clone()] {
            fs::create_dir_all(&folder).map_err(HubError::disk(&folder))?;
        }
        Ok(())
    }

    /// Waits until no other process downloads this blob. The lock goes with the returned file, or with the process.
    pub(super) fn lock(
        &self,
        remote: &Remote,
        interrupt: &Interrupt,
        watch: &mut dyn FnMut(Event),
    ) -> Result<File, HubError> {
        let path = self.locks.join(format!("{}.lock", remote.etag));
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(HubError::disk(&path))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        watch(Event::Note(format!("{}: another process is downloading it; waiting", remote.name)));
                        told = true;
                    }
                    nap(Duration::from_millis(100), interrupt)?;
                }
                // Some network file systems have no locks; the checksum still guards the file.
                Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(HubError::disk(&path)(error)),
            }
        }
    }

    /// Gives a verified download its name.
    pub(super) fn keep(&self, etag: &str) -> Result<(), HubError> {
        let blob = self.blob(etag);
        fs::rename(self.partial(etag), &blob).map_err(HubError::disk(&blob))?;
        sync_folder(&self.root.join("blobs"))
    }

    /// Puts a blob into a snapshot under its file name: a relative symbolic link, or a copy where links are impossible.
    pub(super) fn link(&self, commit: &str, remote: &Remote) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(&remote.name);
        let up = "../".repeat(2 + remote.name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{}", remote.etag));
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(HubError::disk(folder))?;
        let temporary = folder.join(format!(".{}.{}.tmp", remote.etag, std::process::id()));
        let _ = fs::remove_file(&temporary);
        if symbolic_link(&target, &temporary).is_ok() {
            fs::rename(&temporary, &path).map_err(HubError::disk(&path))?;
            return sync_folder(folder);
        }
        let blob = self.blob(&remote.etag);
        write_atomic(&path, |file| {
            std::io::copy(&mut File::open(&blob)?, file)?;
            Ok(())
        })
        .map_err(written)
    }

    /// Names a commit by the revision it was asked for by. A commit needs no other name.
    pub(super) fn name_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.root.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|found| found == commit) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(HubError::disk(folder))?;
        write_atomic(&path, |file| file.write_all(commit.as_bytes())).map_err(written)
    }

    /// Bytes left on the disk, where that can be known.
    pub(super) fn free_space(&self) -> Option<(PathBuf, u64)> {
        let folder = self.root.ancestors().find(|folder| folder.is_dir())?;
        free_bytes(folder).map(|free| (folder.to_owned(), free))
    }
}

fn written(error: WriteError) -> HubError {
    match error {
        WriteError::Create { path, source }
        | WriteError::Write { path, source }
        | WriteError::Rename { path, source } => HubError::disk(&path)(source),
        WriteError::DiskFull { path } => HubError::DiskFull { path },
        other => HubError::Cache { path: PathBuf::new(), source: std::io::Error::other(other.to_string()) },
    }
}

#[cfg(unix)]
fn symbolic_link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symbolic_link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Makes new names in a folder durable. Only Unix lets a folder be opened for that.
fn sync_folder(folder: &Path) -> Result<(), HubError> {
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(HubError::disk(folder))?;
    }
    Ok(())
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(folder).ok()?;
    facts.f_bavail.checked_mul(facts.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}
