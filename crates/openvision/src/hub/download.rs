//! One file, from wherever an earlier try stopped to the byte where its checksum is right.

use super::client::{Client, Patience, Remote};
use super::error::Failure;
use super::{Event, HubError};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Bytes at a time.
const CHUNK: usize = 128 << 10;

/// A file that is not whole yet, and the checksum of what there is.
struct Partial {
    file: File,
    path: PathBuf,
    hash: Context,
    length: u64,
}

/// SHA-256 of the bytes, or git's id of a blob: SHA-1 with a header. What is guarded against is damage and truncation; git's
/// hash is all that the hub gives for files that are in git.
fn start_hash(remote: &Remote) -> Context {
    if remote.etag.len() == 64 {
        return Context::new(&SHA256);
    }
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(format!("blob {}\0", remote.size).as_bytes());
    hash
}

impl Partial {
    /// Opens what an earlier try left, or an empty file.
    fn open(path: &Path, remote: &Remote, client: &Client) -> Result<Self, HubError> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(HubError::disk(path))?;
        let mut partial = Self { file, path: path.to_owned(), hash: start_hash(remote), length: 0 };
        let mut buffer = vec![0; CHUNK];
        loop {
            if client.interrupt.is_set() {
                return Err(HubError::Interrupted);
            }
            let read = partial.file.read(&mut buffer).map_err(HubError::disk(path))?;
            partial.hash.update(&buffer[..read]);
            partial.length += read as u64;
            if partial.length > remote.size {
                partial.restart(remote)?;
                return Ok(partial);
            }
            if read == 0 {
                return Ok(partial);
            }
        }
    }

    fn restart(&mut self, remote: &Remote) -> Result<(), HubError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(HubError::disk(&self.path))?;
        self.hash = start_hash(remote);
        self.length = 0;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(HubError::disk(&self.path))?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn digest(&self) -> String {
        self.hash.clone().finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn remove(self) {
        drop(self.file);
        // If it cannot be removed, the next try finds out by the checksum.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Downloads into `path`, a name that is not final. On success the bytes are whole, verified and synced; after a wrong
/// checksum they are gone; after anything else they are kept to go on from.
pub(super) fn download(
    client: &Client,
    (hub_id, remote, tries): (&str, &Remote, u32),
    path: &Path,
    watch: &mut dyn FnMut(Event),
) -> Result<(), HubError> {
    let mut partial = Partial::open(path, remote, client)?;
    let mut inherited = partial.length > 0;
    watch(Event::Started { name: &remote.name, size: remote.size, have: partial.length });
    loop {
        fill(client, (hub_id, remote, tries), &mut partial, watch)?;
        let found = partial.digest();
        if found == remote.etag {
            return partial.file.sync_all().map_err(HubError::disk(path));
        }
        if !inherited {
            partial.remove();
            return Err(HubError::Checksum { file: remote.name.clone(), expected: remote.etag.clone(), found });
        }
        // What an earlier try left may have been damaged, by a power cut for example: once more without it.
        inherited = false;
        watch(Event::Note(format!("{}: what was here before is damaged; starting over", remote.name)));
        partial.restart(remote)?;
        watch(Event::At(0));
    }
}

/// Fetches until the announced length is there. Only tries that get further than any before count as progress.
fn fill(
    client: &Client,
    (hub_id, remote, tries): (&str, &Remote, u32),
    partial: &mut Partial,
    watch: &mut dyn FnMut(Event),
) -> Result<(), HubError> {
    let mut patience = Patience::new(&remote.name, tries);
    let mut furthest = partial.length;
    while partial.length < remote.size {
        let Err(failure) = pour(client, (hub_id, remote), partial, watch) else { break };
        if let Failure::Final(HubError::TooLong { file, announced }) = failure {
            let _ = partial.restart(remote);
            let _ = std::fs::remove_file(&partial.path);
            return Err(HubError::TooLong { file, announced });
        }
        if partial.length > furthest {
            furthest = partial.length;
            patience.reset();
        }
        if let Failure::Passing { problem, .. } = &failure {
            watch(Event::Note(format!("{}: {problem}, at byte {}", remote.name, partial.length)));
        }
        patience.wait(failure, client)?;
    }
    Ok(())
}

/// One connection's worth.
fn pour(
    client: &Client,
    (hub_id, remote): (&str, &Remote),
    partial: &mut Partial,
    watch: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let mut incoming = client.open(hub_id, remote, partial.length)?;
    if incoming.start != partial.length {
        partial.restart(remote)?;
        watch(Event::At(0));
    }
    let mut reader = incoming.body.as_reader();
    let mut buffer = vec![0; CHUNK];
    loop {
        if client.interrupt.is_set() {
            return Err(HubError::Interrupted.into());
        }
        let read = match reader.read(&mut buffer) {
            Ok(read) => read,
            Err(error) => return Err(Failure::passing(format!("the connection broke ({error})"))),
        };
        if read == 0 && partial.length < remote.size {
            return Err(Failure::passing("the connection ended early"));
        }
        if read == 0 {
            return Ok(());
        }
        if partial.length + read as u64 > remote.size {
            return Err(HubError::TooLong { file: remote.name.clone(), announced: remote.size }.into());
        }
        partial.append(&buffer[..read])?;
        watch(Event::At(partial.length));
    }
}
