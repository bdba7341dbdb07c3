//! A small hub on loopback: a listing, files in git behind a relative redirect, large files behind a redirect to a second
//! server, ranges, and whatever faults a test puts in.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) from: Option<usize>,
    pub(crate) token: Option<String>,
    /// Whether it came to the second server.
    pub(crate) cdn: bool,
}

impl Asked {
    /// A request for the bytes of a large file.
    pub(crate) fn is_body(&self) -> bool {
        self.cdn && self.method == "GET"
    }
}

/// What happens after some of the body is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The connection ends.
    Cut(usize),
    /// Nothing more comes.
    Silence(usize),
    /// A byte comes every so often.
    Drip(Duration),
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) fault: Option<Fault>,
}

impl Reply {
    pub(crate) fn of(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { status, headers, body: body.into(), fault: None }
    }

    pub(crate) fn with(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }
}

type Change = dyn Fn(&Asked, Reply) -> Reply + Send + Sync;

pub(crate) struct Hub {
    pub(crate) endpoint: String,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Hub {
    /// Serves `files` as the repository `test/tiny`; `change` sees each request and the answer a good hub gives.
    pub(crate) fn start(
        files: Vec<(String, Vec<u8>)>,
        change: impl Fn(&Asked, Reply) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let change: Arc<Change> = Arc::new(change);
        let (hub, cdn) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let endpoint = format!("http://{}", hub.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let shelf = Arc::new(Shelf { files, cdn: format!("http://{}", cdn.local_addr().unwrap()) });
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let (change, log, shelf) = (Arc::clone(&change), Arc::clone(&log), Arc::clone(&shelf));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (change, log, shelf) = (Arc::clone(&change), Arc::clone(&log), Arc::clone(&shelf));
                    std::thread::spawn(move || {
                        let Some(asked) = read(&stream, is_cdn) else { return };
                        log.lock().unwrap().push(asked.clone());
                        let reply = change(&asked, shelf.answer(&asked));
                        // The client may be killed at any moment.
                        let _ = write(stream, &asked, &reply);
                    });
                }
            });
        }
        Self { endpoint, log }
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

struct Shelf {
    files: Vec<(String, Vec<u8>)>,
    cdn: String,
}

impl Shelf {
    fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.path.split('?').next().unwrap();
        if asked.cdn {
            let found = self.files.iter().find(|(_, bytes)| path == format!("/{}", sha256(bytes)));
            return found.map_or_else(|| Reply::of(404, &[], ""), |(_, bytes)| part(asked, bytes));
        }
        if path == "/api/models/test/tiny/revision/main" || path == format!("/api/models/test/tiny/revision/{COMMIT}") {
            let names: Vec<_> = self.files.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
            return Reply::of(200, &[], serde_json::json!({ "sha": COMMIT, "siblings": names }).to_string());
        }
        if path.starts_with("/api/models/test/tiny/") {
            return Reply::of(404, &[("x-error-code", "RevisionNotFound")], "");
        }
        if path.starts_with("/api/models/") {
            return Reply::of(404, &[("x-error-code", "RepoNotFound")], "");
        }
        let wanted = |folder: &str| path.strip_prefix(&format!("{folder}/{COMMIT}/")).map(str::to_owned);
        let (name, direct) = match (wanted("/test/tiny/resolve"), wanted("/direct")) {
            (Some(name), _) => (name, false),
            (_, Some(name)) => (name, true),
            _ => return Reply::of(404, &[], ""),
        };
        let Some((_, bytes)) = self.files.iter().find(|(found, _)| *found == name) else {
            return Reply::of(404, &[("x-error-code", "EntryNotFound")], "");
        };
        let commit = ("x-repo-commit", COMMIT);
        if name.ends_with(".safetensors") {
            let (hash, size) = (sha256(bytes), bytes.len().to_string());
            let (etag, location) = (format!("\"{hash}\""), format!("{}/{hash}?signature=secret", self.cdn));
            let headers = [commit, ("x-linked-etag", etag.as_str()), ("x-linked-size", &size), ("location", &location)];
            return Reply::of(302, &headers, "Found. Redirecting");
        }
        if !direct {
            return Reply::of(307, &[commit, ("location", &format!("/direct/{COMMIT}/{name}"))], "Temporary Redirect");
        }
        let mut reply = part(asked, bytes);
        reply.headers.push(("etag", format!("W/\"{}\"", git_id(bytes))));
        reply.headers.push((commit.0, commit.1.to_owned()));
        reply
    }
}

/// The bytes, or the range of them that is asked for.
fn part(asked: &Asked, bytes: &[u8]) -> Reply {
    match asked.from {
        None => Reply::of(200, &[], bytes),
        Some(from) if from < bytes.len() => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::of(206, &[("content-range", &range)], &bytes[from..])
        }
        Some(_) => Reply::of(416, &[], ""),
    }
}

fn read(stream: &TcpStream, cdn: bool) -> Option<Asked> {
    let mut text = Vec::new();
    let mut byte = [0];
    let mut stream = stream;
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 || text.len() > 1 << 16 {
            return None;
        }
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).ok()?;
    let header = |name: &str| {
        text.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|p| p.1))
    };
    let mut first = text.lines().next()?.split(' ');
    Some(Asked {
        method: first.next()?.to_owned(),
        path: first.next()?.to_owned(),
        from: header("range")
            .map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()),
        token: header("authorization").map(str::to_owned),
        cdn,
    })
}

fn write(mut stream: TcpStream, asked: &Asked, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !reply.headers.iter().any(|(name, _)| ["content-length", "transfer-encoding"].contains(name)) {
        head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    if let Some(Fault::Drip(pause)) = reply.fault {
        for byte in &reply.body {
            stream.write_all(&[*byte])?;
            std::thread::sleep(pause);
        }
    }
    let end = match reply.fault {
        Some(Fault::Cut(end) | Fault::Silence(end)) => end.min(reply.body.len()),
        _ => reply.body.len(),
    };
    stream.write_all(&reply.body[..end])?;
    if let Some(Fault::Silence(_)) = reply.fault {
        // Until the client goes away.
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

pub(crate) fn git_id(bytes: &[u8]) -> String {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(format!("blob {}\0", bytes.len()).as_bytes());
    hash.update(bytes);
    hex(hash.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
