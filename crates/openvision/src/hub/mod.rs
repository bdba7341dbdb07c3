//! Models from a hub that speaks Hugging Face's protocol, into the cache that the hub's own client uses. The only code of
//! this program that opens a connection, and only `openvision models fetch` calls it.

mod cache;
mod choose;
mod client;
mod download;
mod error;
mod settings;
mod url;

pub use error::HubError;
pub use settings::Settings;

use crate::interrupt::Interrupt;
use crate::resolve::hub_id_of;
use cache::Repository;
use client::{Client, Remote};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A short name of the registry or a hub id.
    pub model: &'a str,
    /// A branch, a tag or a commit.
    pub revision: &'a str,
}

/// A file of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name in the repository.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes of it that are in the cache already.
    pub here: u64,
}

/// What a fetch needs to download, and where it goes.
pub struct Plan<'a> {
    /// The repository.
    pub hub_id: &'a str,
    /// The revision that was asked for.
    pub revision: &'a str,
    /// The commit that it is.
    pub commit: String,
    /// The hub.
    pub endpoint: String,
    /// The folder of the model.
    pub folder: PathBuf,
    /// The files, in the order of download.
    pub files: Vec<Planned>,
    client: Client<'a>,
    tries: u32,
    remotes: Vec<Remote>,
    repository: Repository,
}

/// What a watcher of a download sees.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'e> {
    /// A file's download begins.
    Started {
        /// The file.
        name: &'e str,
        /// Its length in bytes.
        size: u64,
        /// Bytes that are here already.
        have: u64,
    },
    /// So many bytes of the file are here.
    At(u64),
    /// The file is whole, verified and has its name.
    Finished,
    /// Something that a user may want to know.
    Note(String),
}

/// Asks the hub what there is and compares it with the cache. Nothing is written.
///
/// # Errors
/// The network is forbidden or fails, the model is unknown or not for this user, or the hub's answer cannot be used.
pub fn plan<'a>(request: Request<'a>, settings: &'a Settings, interrupt: &'a Interrupt) -> Result<Plan<'a>, HubError> {
    let hub_id = hub_id_of(request.model);
    choose::check_id(hub_id).map_err(|error| match error {
        HubError::NotAnId { given, problem } => {
            HubError::NotAnId { given, problem: format!("{problem}{}", crate::resolve::near(request.model)) }
        }
        other => other,
    })?;
    choose::check_revision(request.revision)?;
    if let Some(because) = settings.offline {
        return Err(HubError::Offline { hub_id: hub_id.into(), because });
    }
    let client = Client::new(settings, interrupt)?;
    let listing = client.listing(hub_id, request.revision)?;
    let Some(chosen) = choose::choose(&listing.names) else {
        let some: Vec<String> = listing.names.iter().take(8).map(|name| choose::shown(name)).collect();
        let found = if some.is_empty() { "nothing".into() } else { some.join(", ") };
        return Err(HubError::NoWeights { hub_id: hub_id.into(), found });
    };
    let remotes = chosen.into_iter().map(|name| client.remote(hub_id, &listing.commit, name));
    let remotes: Vec<Remote> = remotes.collect::<Result<_, _>>()?;
    let repository = Repository::new(&settings.cache, hub_id);
    let planned =
        |remote: &Remote| Planned { name: remote.name.clone(), size: remote.size, here: repository.bytes_here(remote) };
    Ok(Plan {
        hub_id,
        revision: request.revision,
        endpoint: settings.endpoint.shown().trim_end_matches('/').to_owned(),
        folder: repository.snapshot(&listing.commit),
        files: remotes.iter().map(planned).collect(),
        commit: listing.commit,
        client,
        tries: settings.tries,
        remotes,
        repository,
    })
}

impl Plan<'_> {
    /// Bytes that are not in the cache yet.
    pub fn missing(&self) -> u64 {
        // Sizes are the server's word.
        self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size - file.here))
    }

    /// Downloads what is missing and gives the snapshot its names. Returns the bytes that were downloaded.
    ///
    /// # Errors
    /// The network, the server or the disk fails. What was downloaded is kept, but for bytes that are wrong.
    pub fn download(&self, watch: &mut dyn FnMut(Event)) -> Result<u64, HubError> {
        let needed = self.missing();
        if let Some((path, free)) = self.repository.free_space().filter(|(_, free)| *free < needed) {
            return Err(HubError::NoSpace { path, needed, free });
        }
        let mut downloaded = 0;
        for remote in &self.remotes {
            if !self.repository.has(remote) {
                downloaded += self.fetch(remote, watch)?;
            }
            self.repository.link(&self.commit, remote)?;
        }
        self.repository.name_commit(self.revision, &self.commit)?;
        Ok(downloaded)
    }

    fn fetch(&self, remote: &Remote, watch: &mut dyn FnMut(Event)) -> Result<u64, HubError> {
        self.repository.prepare()?;
        let _lock = self.repository.lock(remote, self.client.interrupt, watch)?;
        // Another process may have finished it while this one waited.
        if self.repository.has(remote) {
            return Ok(0);
        }
        let before = self.repository.bytes_here(remote);
        let partial = self.repository.partial(&remote.etag);
        download::download(&self.client, (self.hub_id, remote, self.tries), &partial, watch)?;
        self.repository.keep(&remote.etag)?;
        watch(Event::Finished);
        Ok(remote.size - before)
    }
}

/// Sleeps, but not through Ctrl-C.
fn nap(time: Duration, interrupt: &Interrupt) -> Result<(), HubError> {
    let end = Instant::now() + time;
    loop {
        if interrupt.is_set() {
            return Err(HubError::Interrupted);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
