//! What the environment says, by the names that the hub's own client uses.

use super::HubError;
use super::url::Url;
use crate::resolve::{cache_folder, hub_home};
use std::path::PathBuf;
use std::time::Duration;

/// Where to fetch from and to, as whom, and how patiently.
#[derive(Clone)]
pub struct Settings {
    pub(super) endpoint: Url,
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    /// What forbids the network, if something does.
    pub(super) offline: Option<&'static str>,
    /// A server that is silent for so long has broken the connection: answers about files, and files.
    pub(super) silence: (Duration, Duration),
    pub(super) certificates: Option<(&'static str, PathBuf)>,
    /// Tries without progress before giving up.
    pub tries: u32,
    /// Is told why nothing happens for some seconds.
    pub note: fn(&str),
}

impl Settings {
    /// `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`, `HF_HUB_ETAG_TIMEOUT`,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`, and `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`. Proxies are ureq's business.
    ///
    /// # Errors
    /// A variable has a value that cannot be used.
    pub fn from_environment() -> Result<Self, HubError> {
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = Url::parse(&endpoint).map_err(|problem| HubError::Setting { name: "HF_ENDPOINT", problem })?;
        let cache = cache_folder().ok_or_else(|| HubError::Setting {
            name: "HF_HUB_CACHE",
            problem: "there is no home folder; set it to the folder that models are kept in".into(),
        })?;
        let certificates = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]
            .into_iter()
            .find_map(|name| Some((name, PathBuf::from(text(name)?))));
        Ok(Self {
            endpoint,
            cache,
            token: token()?,
            offline: is_on("HF_HUB_OFFLINE").then_some("HF_HUB_OFFLINE"),
            silence: (seconds("HF_HUB_ETAG_TIMEOUT")?, seconds("HF_HUB_DOWNLOAD_TIMEOUT")?),
            certificates,
            tries: 5,
            note: |_| {},
        })
    }

    /// Forbids the network, as `--offline` does.
    pub fn forbid_network(&mut self) {
        self.offline = Some("--offline");
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn is_on(name: &str) -> bool {
    text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
}

fn seconds(name: &'static str) -> Result<Duration, HubError> {
    let Some(value) = text(name) else { return Ok(Duration::from_secs(10)) };
    match value.parse::<u64>() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err(HubError::Setting { name, problem: format!("'{value}' is not a number of seconds from 1 to 3600") }),
    }
}

/// The token of the environment, else of the file that `hf auth login` writes.
fn token() -> Result<Option<String>, HubError> {
    if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return Ok(None);
    }
    let (name, found) = match text("HF_TOKEN") {
        Some(token) => ("HF_TOKEN", Some(token)),
        None => {
            let path = text("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| hub_home().map(|home| home.join("token")));
            let from_file = path.and_then(|path| std::fs::read_to_string(path).ok()).map(|text| text.trim().to_owned());
            ("HF_TOKEN_PATH", from_file.filter(|token| !token.is_empty()))
        }
    };
    // It becomes a line of a request: nothing in it may end that line. The value is a secret, so it is not shown.
    if found.as_ref().is_some_and(|token| token.len() > 4096 || !token.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(HubError::Setting { name, problem: "its token has characters that no token has".into() });
    }
    Ok(found)
}
