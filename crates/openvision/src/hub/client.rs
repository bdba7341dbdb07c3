//! Questions to a hub over HTTP. Redirects are followed here, not by the HTTP library, so that every hop is checked: the
//! token goes to the hub's own origin only, and nothing leads from https to http.

use super::choose::{check_name, shown};
use super::error::Failure;
use super::settings::Settings;
use super::url::{Url, encode};
use super::{HubError, nap};
use crate::interrupt::Interrupt;
use serde::Deserialize;
use std::cell::Cell;
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Timeout};

/// A listing of a repository is a few kilobytes; those with thousands of checkpoints are a few hundred.
const LARGEST_LISTING: u64 = 8 << 20;
const MOST_FILES: usize = 100_000;
const MOST_REDIRECTS: usize = 8;
/// A server that asks for a longer wait than this is left.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Speaks to one hub.
pub(super) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
    pub(super) interrupt: &'a Interrupt,
    /// Something has answered: later failures to connect are passing ones.
    reached: Cell<bool>,
}

/// A repository at a revision.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) names: Vec<String>,
}

/// A file as the hub announces it.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) size: u64,
    /// SHA-256 of the bytes (64 digits) or the id of the git blob (40): also the blob's name in the cache.
    pub(super) etag: String,
}

/// A body under way.
pub(super) struct Incoming {
    /// The offset of its first byte.
    pub(super) start: u64,
    pub(super) body: Body,
}

#[derive(Clone, Copy)]
struct Ask<'a> {
    url: &'a Url,
    kind: Kind,
    range_from: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A question about a file.
    Head,
    /// A question with a short answer.
    Listing,
    /// A file: it may take as long as it likes, if only it goes on.
    Body,
}

enum Hop {
    Elsewhere(Url, Response<Body>),
    Here(Response<Body>),
}

/// Waits between tries, longer each time, and counts those that brought nothing.
pub(super) struct Patience<'a> {
    what: &'a str,
    tries: u32,
    failed: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(what: &'a str, tries: u32) -> Self {
        Self { what, tries, failed: 0 }
    }

    /// There was progress: earlier failures do not count.
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }

    /// Waits, or gives up.
    pub(super) fn wait(&mut self, failure: Failure, client: &Client) -> Result<(), HubError> {
        let (mut problem, asked) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { problem, wait } => (problem, wait),
        };
        self.failed += 1;
        let too_long = asked.filter(|wait| *wait > LONGEST_WAIT);
        if let Some(wait) = too_long {
            problem.push_str(&format!("; it asks to come back in {} s", wait.as_secs()));
        }
        if self.failed >= self.tries || too_long.is_some() {
            return Err(HubError::GaveUp { what: self.what.into(), problem, tries: self.failed });
        }
        let wait = asked.unwrap_or(Duration::from_millis(250 << (self.failed - 1).min(5)));
        if wait > Duration::from_secs(2) {
            (client.settings.note)(&format!("{}: {problem}; waiting {} s", self.what, wait.as_secs()));
        }
        nap(wait, client.interrupt)
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a Settings, interrupt: &'a Interrupt) -> Result<Self, HubError> {
        let roots = match &settings.certificates {
            Some((name, path)) => {
                let problem = |problem: String| HubError::Setting { name, problem };
                let text = std::fs::read(path).map_err(|error| problem(format!("{}: {error}", path.display())))?;
                let certificates: Vec<_> = parse_pem(&text)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() {
                    return Err(problem(format!("{} holds no certificate (PEM)", path.display())));
                }
                RootCerts::new_with_certs(&certificates)
            }
            None => RootCerts::WebPki,
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("openvision/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(settings.silence.1))
            .timeout_resolve(Some(settings.silence.1))
            .timeout_per_write(Some(settings.silence.1))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .new_agent();
        Ok(Self { agent, settings, interrupt, reached: Cell::new(false) })
    }

    /// The files of a repository.
    pub(super) fn listing(&self, hub_id: &str, revision: &str) -> Result<Listing, HubError> {
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        let url = self.below(&format!("api/models/{hub_id}/revision/{}", encode(revision, false)))?;
        let bytes = self.persist(&format!("the list of files of {hub_id}"), || {
            let ask = Ask { url: &url, kind: Kind::Listing, range_from: 0 };
            let mut response = self.follow(ask)?;
            self.check_status(&response, hub_id, (&url, Some(revision), None))?;
            let body = response.body_mut().with_config().limit(LARGEST_LISTING).read_to_vec();
            body.map_err(|error| self.failure(&url, error))
        })?;
        let info: Info = serde_json::from_slice(&bytes).map_err(|error| {
            let page = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<');
            let problem = if page {
                "a web page instead of a list of files: is this a hub (HF_ENDPOINT), or does your network want a login?"
                    .into()
            } else {
                format!("not a list of files as a hub gives it ({error})")
            };
            HubError::Answer { url: url.shown(), problem }
        })?;
        if !is_hex(&info.sha, 40) || info.siblings.len() > MOST_FILES {
            let problem = "not a list of files as a hub gives it (its commit or its length cannot be)".into();
            return Err(HubError::Answer { url: url.shown(), problem });
        }
        let names: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        names.iter().try_for_each(|name| check_name(hub_id, name))?;
        Ok(Listing { commit: info.sha, names })
    }

    /// What the hub says of a file: its length and checksum. Stops at the first hop that says both, as a file's own
    /// server (a CDN) knows only the latter.
    pub(super) fn remote(&self, hub_id: &str, commit: &str, name: &str) -> Result<Remote, HubError> {
        let url = self.below(&format!("{hub_id}/resolve/{commit}/{}", encode(name, true)))?;
        self.persist(name, || {
            let (mut etag, mut size) = (None, None);
            let mut at = url.clone();
            for _ in 0..=MOST_REDIRECTS {
                let ask = Ask { url: &at, kind: Kind::Head, range_from: 0 };
                let hop = self.hop(ask)?;
                let (Hop::Elsewhere(_, response) | Hop::Here(response)) = &hop;
                if header(response, "x-repo-commit").is_some_and(|found| found != commit) {
                    let problem = "the server answers for another commit than the one asked for".into();
                    return Err(HubError::Answer { url: at.shown(), problem }.into());
                }
                etag = etag.or_else(|| header(response, "x-linked-etag").map(plain_etag));
                size = size.or_else(|| header(response, "x-linked-size").and_then(|size| size.parse().ok()));
                match hop {
                    Hop::Elsewhere(next, _) if etag.is_none() || size.is_none() => at = next,
                    Hop::Elsewhere(..) => break,
                    Hop::Here(response) => {
                        self.check_status(&response, hub_id, (&at, None, Some(name)))?;
                        etag = etag.or_else(|| header(&response, "etag").map(plain_etag));
                        size = size.or_else(|| header(&response, "content-length").and_then(|size| size.parse().ok()));
                        break;
                    }
                }
            }
            let wrong = |problem: &str| HubError::Answer { url: url.shown(), problem: problem.into() };
            let etag = etag.ok_or_else(|| wrong("the server names no checksum (etag), so nothing can be verified"))?;
            if !(is_hex(&etag, 64) || is_hex(&etag, 40)) {
                return Err(wrong("its etag is no checksum (SHA-256 or a git id), so nothing can be verified").into());
            }
            let size = size.ok_or_else(|| wrong("the server does not say how long the file is"))?;
            Ok(Remote { name: name.to_owned(), url: url.clone(), size, etag })
        })
    }

    /// Opens a file from an offset on. The answer may start elsewhere: at zero, where the server does not do ranges.
    pub(super) fn open(&self, hub_id: &str, remote: &Remote, from: u64) -> Result<Incoming, Failure> {
        let ask = Ask { url: &remote.url, kind: Kind::Body, range_from: from };
        let response = self.follow(ask)?;
        if from > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return self.open(hub_id, remote, 0);
        }
        self.check_status(&response, hub_id, (&remote.url, None, Some(&remote.name)))?;
        let start = match (response.status(), header(&response, "content-range")) {
            (StatusCode::PARTIAL_CONTENT, Some(range)) if from > 0 => match content_range(range) {
                Some((start, total)) if start == from && total.is_none_or(|total| total == remote.size) => from,
                // Not what was asked for: without a range there is nothing to get wrong.
                _ => return self.open(hub_id, remote, 0),
            },
            (StatusCode::PARTIAL_CONTENT, _) => {
                let problem = "a part of the file where the whole was asked for".into();
                return Err(HubError::Answer { url: remote.url.shown(), problem }.into());
            }
            _ => 0,
        };
        let (_, body) = response.into_parts();
        Ok(Incoming { start, body })
    }

    /// Tries until something final comes of it.
    fn persist<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, HubError> {
        let mut patience = Patience::new(what, self.settings.tries);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => patience.wait(failure, self)?,
            }
        }
    }

    fn below(&self, path: &str) -> Result<Url, HubError> {
        self.settings.endpoint.below(path).map_err(|problem| HubError::Setting { name: "HF_ENDPOINT", problem })
    }

    fn follow(&self, ask: Ask) -> Result<Response<Body>, Failure> {
        let mut at = ask.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            match self.hop(Ask { url: &at, ..ask })? {
                Hop::Here(response) => return Ok(response),
                Hop::Elsewhere(next, _) => at = next,
            }
        }
        Err(HubError::Answer { url: ask.url.shown(), problem: "too many redirects".into() }.into())
    }

    /// One request and its answer.
    fn hop(&self, ask: Ask) -> Result<Hop, Failure> {
        if self.interrupt.is_set() {
            return Err(HubError::Interrupted.into());
        }
        let uri = ask.url.uri().clone();
        let mut request = if ask.kind == Kind::Head { self.agent.head(uri) } else { self.agent.get(uri) };
        if ask.range_from > 0 {
            request = request.header("range", format!("bytes={}-", ask.range_from));
        }
        if let Some(token) = self.settings.token.as_ref().filter(|_| ask.url.same_origin(&self.settings.endpoint)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (about_files, files) = self.settings.silence;
        let silence = if ask.kind == Kind::Body { files } else { about_files };
        let mut config = request.config().timeout_per_read(Some(silence)).timeout_recv_response(Some(silence * 2));
        if ask.kind != Kind::Body {
            // A short answer that comes byte by byte is none.
            config = config.timeout_per_call(Some(silence * 6));
        }
        if ask.url.is_loopback() {
            config = config.proxy(None);
        }
        let response = config.build().call().map_err(|error| self.failure(ask.url, error))?;
        self.reached.set(true);
        let redirects = [301, 302, 303, 307, 308];
        match header(&response, "location").filter(|_| redirects.contains(&response.status().as_u16())) {
            None => Ok(Hop::Here(response)),
            Some(location) => match ask.url.join(location) {
                Ok(next) => Ok(Hop::Elsewhere(next, response)),
                Err(problem) => {
                    let problem = format!("a redirect that is not followed: {problem}");
                    Err(HubError::Answer { url: ask.url.shown(), problem }.into())
                }
            },
        }
    }

    /// What an answer's status means: `(url, revision asked for, file asked for)`.
    fn check_status(
        &self,
        response: &Response<Body>,
        hub_id: &str,
        (url, revision, file): (&Url, Option<&str>, Option<&str>),
    ) -> Result<(), Failure> {
        let status = response.status();
        let endpoint = self.settings.endpoint.shown().trim_end_matches('/').to_owned();
        let hub_id = hub_id.to_owned();
        let code = header(response, "x-error-code").unwrap_or("");
        let error = match (status.as_u16(), code) {
            (200 | 206, _) => return Ok(()),
            (401 | 403 | 404, "GatedRepo") => HubError::Denied {
                problem: format!(
                    "its authors want their terms accepted first: do so at {endpoint}/{hub_id}, then set HF_TOKEN to a \
                     token of yours"
                ),
                hub_id,
                endpoint,
            },
            (401 | 404, "RepoNotFound") => no_repository(hub_id, endpoint),
            (404, "RevisionNotFound") => HubError::NoRevision { hub_id, revision: revision.unwrap_or("").into() },
            (404, _) if file.is_some() => HubError::NoFile { hub_id, file: file.unwrap_or("").into() },
            (404, _) => no_repository(hub_id, endpoint),
            (401 | 403, _) => {
                let problem = match self.settings.token {
                    Some(_) => "the token (HF_TOKEN, or the file that `hf auth login` wrote) does not give access",
                    None => "it does not exist, or is private or gated: check the name, or set HF_TOKEN",
                };
                HubError::Denied { hub_id, endpoint, problem: format!("{problem} (status {status})") }
            }
            (408 | 425 | 429 | 500..=599, _) => {
                let wait = header(response, "retry-after").and_then(|text| text.trim().parse().ok());
                let wait = wait.or_else(|| header(response, "ratelimit").and_then(rate_limit_reset));
                let problem = match status.as_u16() {
                    429 => "the server says that there are too many requests (status 429); with HF_TOKEN set, it \
                            allows more"
                        .to_owned(),
                    _ => format!("the server answers with status {status}"),
                };
                return Err(Failure::Passing { problem, wait: wait.map(Duration::from_secs) });
            }
            _ => {
                let said = header(response, "x-error-message").map(|text| format!(": {}", shown(text)));
                let problem = format!("the server answers with status {status}{}", said.unwrap_or_default());
                HubError::Answer { url: url.shown(), problem }
            }
        };
        Err(error.into())
    }

    /// Sorts what went wrong on the way.
    fn failure(&self, url: &Url, error: ureq::Error) -> Failure {
        use ureq::Error as E;
        let host = url.host().to_owned();
        let problem = error.to_string();
        match error {
            E::Rustls(_) | E::Tls(_) | E::Pem(_) | E::TlsRequired => HubError::Tls { host, problem }.into(),
            // Handshakes report through the reader that they are part of.
            E::Io(source) if url.is_https() && source.kind() == std::io::ErrorKind::InvalidData => {
                HubError::Tls { host, problem }.into()
            }
            E::Timeout(Timeout::Connect | Timeout::Resolve) if !self.reached.get() => {
                HubError::Unreachable { host, problem: "nothing answers".into() }.into()
            }
            E::Timeout(_) => Failure::passing("the server is silent"),
            E::HostNotFound | E::ConnectionFailed | E::ConnectProxyFailed(_) | E::Io(_) if !self.reached.get() => {
                HubError::Unreachable { host, problem }.into()
            }
            E::BodyExceedsLimit(limit) => {
                HubError::Answer { url: url.shown(), problem: format!("an answer of more than {limit} bytes") }.into()
            }
            E::BadUri(_) | E::InvalidProxyUrl | E::LargeResponseHeader(..) => {
                HubError::Answer { url: url.shown(), problem }.into()
            }
            _ => Failure::passing(problem),
        }
    }
}

fn no_repository(hub_id: String, endpoint: String) -> HubError {
    let near = crate::resolve::near(&hub_id);
    HubError::NoRepository { hub_id, endpoint, near }
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// An etag without its quotes and its mark of weakness.
fn plain_etag(etag: &str) -> String {
    etag.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Seconds to the next window of `"api";r=0;t=55`, Hugging Face's way to say when to come back.
fn rate_limit_reset(text: &str) -> Option<u64> {
    text.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())
}

/// First byte and total of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, if total == "*" { None } else { Some(total.parse().ok()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes */10", "5-9/10", "bytes 5-9", "bytes x-9/10", "bytes 5-9/x", ""] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
        assert_eq!(rate_limit_reset("\"api\";r=0;t=55"), Some(55));
        assert_eq!(rate_limit_reset("\"t=x\";r=0"), None);
        assert_eq!(plain_etag("W/\"ab\""), "ab");
        assert!(is_hex("0af", 3) && !is_hex("0AF", 3) && !is_hex("../", 3));
    }
}
