//! Why a model could not be fetched. Each message says what to do; none holds a token or a signed address.

use std::path::{Path, PathBuf};

/// Why a fetch failed. Whatever the reason, no unfinished file has a final name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The network is forbidden.
    #[error("{because} forbids the network, and fetching {hub_id} needs it; fetch it without, or on another machine")]
    Offline {
        /// What was to be fetched.
        hub_id: String,
        /// `--offline` or `HF_HUB_OFFLINE`.
        because: &'static str,
    },
    /// Neither a hub id nor a known name.
    #[error("'{given}' is not a hub id (ORGANISATION/NAME) or a name of `openvision models list`: {problem}")]
    NotAnId {
        /// What was given.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A revision that cannot be one.
    #[error("'{given}' is not a revision (a branch, a tag or a commit)")]
    NotARevision {
        /// What was given.
        given: String,
    },
    /// A variable of the environment has a value that cannot be used.
    #[error("{name}: {problem}")]
    Setting {
        /// The variable.
        name: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The repository does not exist, or is hidden from this user.
    #[error(
        "{endpoint} shows no model repository {hub_id}{near}; if it is private, set HF_TOKEN to a token that may read it"
    )]
    NoRepository {
        /// What was asked for.
        hub_id: String,
        /// The hub.
        endpoint: String,
        /// Names that are alike.
        near: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{hub_id} has no revision '{revision}'; leave --revision out for the default branch")]
    NoRevision {
        /// The repository.
        hub_id: String,
        /// What was asked for.
        revision: String,
    },
    /// A file that the repository lists is not there.
    #[error("{hub_id} lists {file}, but the server does not have it; try again later, or another --revision")]
    NoFile {
        /// The repository.
        hub_id: String,
        /// The file.
        file: String,
    },
    /// The server wants to know who asks, or does not let this user in.
    #[error("{endpoint} refuses {hub_id}: {problem}")]
    Denied {
        /// The repository.
        hub_id: String,
        /// The hub.
        endpoint: String,
        /// Why and what to do.
        problem: String,
    },
    /// The first connection failed.
    #[error(
        "cannot reach {host}: {problem}; check the network (HTTPS_PROXY, if there is a proxy; HF_ENDPOINT, if a mirror)"
    )]
    Unreachable {
        /// The server.
        host: String,
        /// What the system said.
        problem: String,
    },
    /// The connection is not safe.
    #[error(
        "no secure connection to {host}: {problem}; if your network inspects connections, set SSL_CERT_FILE to its \
         certificates (PEM)"
    )]
    Tls {
        /// The server.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// Too many tries without progress.
    #[error("{what}: {problem} (tries: {tries}); run the command again to go on from what is here")]
    GaveUp {
        /// What was asked for.
        what: String,
        /// The last failure.
        problem: String,
        /// How often it was tried without progress.
        tries: u32,
    },
    /// The server said something that a hub does not say.
    #[error("{url}: {problem}")]
    Answer {
        /// What was asked, without its query.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A name in the repository that would lead out of its folder.
    #[error("{hub_id} lists a file named '{name}', which is not a plain relative path; nothing was fetched")]
    HostileName {
        /// The repository.
        hub_id: String,
        /// The name, escaped.
        name: String,
    },
    /// Nothing in the repository is a weights file.
    #[error("{hub_id} has no weights that this program reads (safetensors, torch or npz files); it holds {found}")]
    NoWeights {
        /// The repository.
        hub_id: String,
        /// Some of its files.
        found: String,
    },
    /// The bytes are not those that the hub announced.
    #[error("{file}: its checksum is {found} instead of {expected}; what was downloaded is removed: fetch again")]
    Checksum {
        /// The file.
        file: String,
        /// The digest that the hub names.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// The server sends more than it announced.
    #[error("{file}: the server sends more than the {announced} bytes that it announced; what came is removed")]
    TooLong {
        /// The file.
        file: String,
        /// The length that the hub names.
        announced: u64,
    },
    /// The disk cannot hold what is to be downloaded.
    #[error("{} has {free} bytes left and {needed} are to be downloaded; free some, or set HF_HUB_CACHE to another disk", path.display())]
    NoSpace {
        /// A folder on that disk.
        path: PathBuf,
        /// Bytes still to be downloaded.
        needed: u64,
        /// Bytes left.
        free: u64,
    },
    /// The disk filled up.
    #[error("{}: no space is left on the disk (or in your quota); what is here is kept: free some and fetch again", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("{}: {source}; the cache has to be a folder that you can write (HF_HUB_CACHE names another one)", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted; what was downloaded is kept")]
    Interrupted,
}

impl HubError {
    /// Names the file of an error of the system, and tells a full disk from the rest.
    pub(super) fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.to_owned();
        move |source| match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::DiskFull { path },
            _ => Self::Cache { path, source },
        }
    }
}

/// How an attempt ended that brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may go better in a moment.
    Passing {
        /// What happened.
        problem: String,
        /// How long the server asks to wait.
        wait: Option<std::time::Duration>,
    },
    /// It will not.
    Final(HubError),
}

impl Failure {
    pub(super) fn passing(problem: impl std::fmt::Display) -> Self {
        Self::Passing { problem: problem.to_string(), wait: None }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}
