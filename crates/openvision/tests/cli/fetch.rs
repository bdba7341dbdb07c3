//! `openvision models fetch` from a hub on loopback that misbehaves in all ways that hubs and networks do.

use crate::hub::{Asked, COMMIT, Fault, Hub, Reply, git_id, sha256};
use crate::support::{Ran, command, photo, small_model};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const WEIGHTS: &str = "open_clip_model.safetensors";

/// A small real model, as a repository with what such repositories hold beside it.
fn files() -> Vec<(String, Vec<u8>)> {
    let read = |name: &str| std::fs::read(Path::new(&small_model()).join(name)).unwrap();
    vec![
        ("README.md".to_owned(), b"# tiny".to_vec()),
        ("jax_orbax_weight/checkpoint.npz/manifest.ocdbt".to_owned(), b"no".to_vec()),
        ("open_clip_config.json".to_owned(), read("open_clip_config.json")),
        (WEIGHTS.to_owned(), read(WEIGHTS)),
        ("pytorch_model.bin".to_owned(), b"another format".to_vec()),
    ]
}

fn weights() -> Vec<u8> {
    files().remove(3).1
}

fn good() -> Hub {
    Hub::start(files(), |_, reply| reply)
}

/// A user of a hub: a cache folder and the environment.
struct User {
    folder: TempDir,
    endpoint: String,
}

impl User {
    fn of(hub: &Hub) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), endpoint: hub.endpoint.clone() }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("hub")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HF_HUB_ETAG_TIMEOUT"] {
            command.env_remove(name);
        }
        // A proxy must not be asked for this machine.
        command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("ALL_PROXY", "http://127.0.0.1:9").env_remove("NO_PROXY");
        command
            .env("HF_ENDPOINT", &self.endpoint)
            .env("HF_HUB_CACHE", self.cache())
            .env("HF_TOKEN_PATH", "/nonexistent");
        command
    }

    fn fetch(&self, extra: &[&str]) -> Ran {
        self.run(self.command(&[&["models", "fetch", "test/tiny"][..], extra].concat()))
    }

    /// Runs, and checks what must hold after every run.
    fn run(&self, mut command: Command) -> Ran {
        let ran = command.output().unwrap().into();
        self.names_are_honest();
        ran
    }

    fn repository(&self) -> PathBuf {
        self.cache().join("models--test--tiny")
    }

    fn partial(&self) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", sha256(&weights())))
    }

    fn partial_length(&self) -> usize {
        std::fs::metadata(self.partial()).map_or(0, |data| data.len() as usize)
    }

    /// No file has a final name that is not whole and right, and no revision is named before all files are there.
    fn names_are_honest(&self) {
        for entry in std::fs::read_dir(self.repository().join("blobs")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let bytes = std::fs::read(&path).unwrap();
            assert!(name.ends_with(".incomplete") || name == sha256(&bytes) || name == git_id(&bytes), "{name}");
        }
        if let Ok(commit) = std::fs::read_to_string(self.repository().join("refs/main")) {
            assert_eq!(commit, COMMIT);
            self.is_whole();
        }
    }

    #[track_caller]
    fn is_whole(&self) {
        let snapshot = self.repository().join("snapshots").join(COMMIT);
        let mut names: Vec<_> =
            std::fs::read_dir(&snapshot).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["open_clip_config.json", WEIGHTS]);
        assert_eq!(std::fs::read(snapshot.join(WEIGHTS)).unwrap(), weights());
        assert!(!self.partial().exists());
    }

    #[track_caller]
    fn has_nothing_whole(&self) {
        assert!(!self.repository().join("refs").exists());
        assert!(!self.repository().join("snapshots").join(COMMIT).join(WEIGHTS).exists());
    }
}

/// The offsets from which the large file was asked for.
fn offsets(asked: &[Asked]) -> Vec<usize> {
    asked.iter().filter(|asked| asked.is_body()).map(|asked| asked.from.unwrap_or(0)).collect()
}

/// Numbers that look random, the same in every run (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[test]
fn a_fetched_model_is_used_and_not_fetched_again() {
    let hub = good();
    let user = User::of(&hub);
    let plan = user.fetch(&["--dry-run", "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(plan["missing_bytes"].as_u64().unwrap() as usize, weights().len() + 708);
    assert_eq!(plan["files"].as_array().unwrap().len(), 2);
    assert!(!user.cache().exists(), "a dry run writes nothing");
    hub.asked();

    let fetched = user.fetch(&[]).expect(0);
    let snapshot = user.repository().join("snapshots").join(COMMIT);
    assert_eq!(fetched.stdout.trim(), snapshot.display().to_string());
    assert!(fetched.stderr.contains("to download: 970.9 kB"), "{}", fetched.stderr);
    user.is_whole();
    // The hub client's layout.
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(snapshot.join(WEIGHTS)).unwrap(),
        Path::new("../../blobs").join(sha256(&weights())).as_path()
    );
    assert_eq!(std::fs::read_to_string(user.repository().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(offsets(&hub.asked()), [0]);

    let embed = |model: &str| {
        let ran = user.run(user.command(&["embed", "-m", model, &photo("china.jpg"), "--json"]));
        ran.expect(0).json_lines().remove(0)["embedding"].clone()
    };
    assert_eq!(embed("test/tiny"), embed(&small_model()));
    assert!(hub.asked().is_empty(), "no other command asks the hub");

    let again = user.fetch(&["--json"]).expect(0);
    assert_eq!(again.json_lines()[0]["downloaded_bytes"], 0);
    assert!(again.stderr.contains("all of it is here"));
    assert!(hub.asked().iter().all(|asked| asked.method == "HEAD" || asked.path.starts_with("/api/")));
    // A commit is a revision too, and needs no name of its own.
    user.fetch(&["--revision", COMMIT]).expect(0);
    assert!(!user.repository().join("refs").join(COMMIT).exists());
}

#[cfg(unix)]
#[test]
fn killed_twenty_times_it_asks_for_the_missing_bytes_only() {
    static QUOTA: AtomicUsize = AtomicUsize::new(0);
    let length = weights().len();
    let hub = Hub::start(files(), |asked, reply| {
        let quota = QUOTA.load(Ordering::SeqCst);
        if !asked.is_body() || quota == usize::MAX {
            return reply;
        }
        reply.with(Fault::Silence(quota.saturating_sub(asked.from.unwrap_or(0))))
    });
    let user = User::of(&hub);
    let mut dice = Dice(1);
    let mut expected = Vec::new();
    for kill in 1..=20 {
        // So far into the file it may come this time; it is killed there, on the way there, or before it begins.
        let quota = length * kill / 21 + dice.below(20_000) as usize;
        QUOTA.store(quota, Ordering::SeqCst);
        let before = user.partial_length();
        let mut child = user.command(&["models", "fetch", "test/tiny", "-q"]).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        if kill % 2 == 0 {
            while user.partial_length() < quota && started.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        std::thread::sleep(Duration::from_millis(dice.below(60)));
        child.kill().unwrap();
        child.wait().unwrap();
        user.names_are_honest();
        user.has_nothing_whole();
        assert!(user.partial_length() >= before && user.partial_length() <= quota);
        let asked = offsets(&hub.asked());
        assert!(asked.iter().all(|from| *from == before), "kill {kill}: {asked:?} with {before} bytes here");
        expected.extend(asked);
    }
    assert!(expected.len() >= 10, "{expected:?}");
    QUOTA.store(usize::MAX, Ordering::SeqCst);
    let here = user.partial_length();
    assert!(here > length * 9 / 10);
    user.fetch(&[]).expect(0);
    assert_eq!(offsets(&hub.asked()), [here]);
    user.is_whole();
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_came() {
    let hub =
        Hub::start(files(), |asked, reply| if asked.is_body() { reply.with(Fault::Silence(300_000)) } else { reply });
    let user = User::of(&hub);
    let mut command = user.command(&["models", "fetch", "test/tiny"]);
    let child = command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1").stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while user.partial_length() < 300_000 && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(130);
    assert!(ran.stderr.contains("interrupted; what was downloaded is kept"), "{}", ran.stderr);
    assert_eq!(user.partial_length(), 300_000);
    user.has_nothing_whole();
}

#[test]
fn broken_connections_go_on_where_they_broke() {
    let hub = Hub::start(files(), |asked, reply| if asked.is_body() { reply.with(Fault::Cut(100_000)) } else { reply });
    let user = User::of(&hub);
    // Two tries, ten breaks: what makes progress is no failure.
    let ran = user.fetch(&["--tries", "2"]).expect(0);
    assert!(ran.stderr.contains("at byte 100000"), "{}", ran.stderr);
    user.is_whole();
    let offsets = offsets(&hub.asked());
    assert_eq!(offsets, (0..=weights().len() / 100_000).map(|n| n * 100_000).collect::<Vec<_>>());
}

#[test]
fn wrong_bytes_get_no_name_and_are_not_gone_on_from() {
    static RIGHT: AtomicUsize = AtomicUsize::new(0);
    let hub = Hub::start(files(), |asked, mut reply| {
        if asked.is_body() && RIGHT.load(Ordering::SeqCst) == 0 {
            reply.body[1000] ^= 1;
        }
        reply
    });
    let user = User::of(&hub);
    let ran = user.fetch(&[]).expect(1);
    assert!(ran.stderr.contains("its checksum is") && ran.stderr.contains(&sha256(&weights())), "{}", ran.stderr);
    user.has_nothing_whole();
    assert!(!user.partial().exists());
    RIGHT.store(1, Ordering::SeqCst);
    hub.asked();
    user.fetch(&[]).expect(0);
    assert_eq!(offsets(&hub.asked()), [0]);
    user.is_whole();
    // A damaged remainder of an earlier try is noticed in the same run.
    std::fs::remove_dir_all(user.repository()).unwrap();
    std::fs::create_dir_all(user.repository().join("blobs")).unwrap();
    std::fs::write(user.partial(), vec![0; 5000]).unwrap();
    let ran = user.fetch(&[]).expect(0);
    assert!(ran.stderr.contains("damaged; starting over"), "{}", ran.stderr);
    assert_eq!(offsets(&hub.asked()), [5000, 0]);
    user.is_whole();
    // One that is too long is not gone on from.
    std::fs::remove_dir_all(user.repository()).unwrap();
    std::fs::create_dir_all(user.repository().join("blobs")).unwrap();
    std::fs::write(user.partial(), vec![0; weights().len() + 1]).unwrap();
    user.fetch(&[]).expect(0);
    assert_eq!(offsets(&hub.asked()), [0]);
}

#[test]
fn files_in_git_are_verified_too() {
    let hub = Hub::start(files(), |asked, mut reply| {
        if asked.path.starts_with("/direct/") && asked.method == "GET" {
            reply.body[0] ^= 1;
        }
        reply
    });
    let user = User::of(&hub);
    let ran = user.fetch(&[]).expect(1);
    assert!(ran.stderr.contains("open_clip_config.json: its checksum is"), "{}", ran.stderr);
    user.has_nothing_whole();
}

#[test]
fn a_truncated_file_is_an_error_that_keeps_what_came() {
    // Every answer ends at byte 5000 of the file, whatever is asked for, with a length that says so.
    let hub = Hub::start(files(), |asked, mut reply| {
        if asked.is_body() {
            reply.body.truncate(5000_usize.saturating_sub(asked.from.unwrap_or(0)));
        }
        reply
    });
    let user = User::of(&hub);
    let ran = user.fetch(&["--tries", "2"]).expect(1);
    assert!(ran.stderr.contains("the connection ended early (tries: 2)"), "{}", ran.stderr);
    user.has_nothing_whole();
    assert_eq!(user.partial_length(), 5000);
}

#[test]
fn more_bytes_than_announced_are_cut_off() {
    let hub = Hub::start(files(), |asked, mut reply| {
        if asked.is_body() {
            reply.body.extend_from_slice(&[0; 10]);
        }
        reply
    });
    let user = User::of(&hub);
    let ran = user.fetch(&[]).expect(1);
    assert!(ran.stderr.contains("sends more than the 970212 bytes"), "{}", ran.stderr);
    user.has_nothing_whole();
    assert!(!user.partial().exists());
}

#[test]
fn absent_and_closed_repositories_are_explained() {
    let hub = good();
    let user = User::of(&hub);
    let fetch = |id: &str| user.run(user.command(&["models", "fetch", id])).expect(1).stderr;
    let said = fetch("UCSC-VLAA/openvision-vit-tiny-patch16-161");
    assert!(said.contains("shows no model repository") && said.contains("near: openvision/tiny"), "{said}");
    let said = user.fetch(&["--revision", "v9"]).expect(1).stderr;
    assert!(said.contains("test/tiny has no revision 'v9'"), "{said}");
    for bad in ["tiny", "../../etc", "a/b/c", "a/..", "a/b\\c", "https://huggingface.co/a/b"] {
        assert!(fetch(bad).contains("is not a hub id"), "{bad}");
    }
    assert!(user.fetch(&["--revision", "../../x"]).expect(1).stderr.contains("is not a revision"));

    for (status, code, want) in [
        (403, "GatedRepo", "terms accepted"),
        (401, "", "private or gated"),
        (401, "RepoNotFound", "shows no model repository"),
        (404, "", "shows no model repository"),
        (418, "", "status 418"),
    ] {
        let hub = Hub::start(files(), move |_, _| Reply::of(status, &[("x-error-code", code)], ""));
        let said = User::of(&hub).fetch(&[]).expect(1).stderr;
        assert!(said.contains(want), "{status} {code}: {said}");
        assert_eq!(hub.asked().len(), 1, "it is final");
    }
    // A listed file that is not there.
    let hub = Hub::start(files(), |asked, reply| if asked.cdn { Reply::of(404, &[], "") } else { reply });
    let user = User::of(&hub);
    let said = user.fetch(&[]).expect(1).stderr;
    assert!(said.contains(WEIGHTS) && said.contains("does not have it"), "{said}");
    user.has_nothing_whole();
    // A repository without weights.
    let hub = Hub::start(vec![("README.md".into(), vec![])], |_, reply| reply);
    let said = User::of(&hub).fetch(&[]).expect(1).stderr;
    assert!(said.contains("has no weights") && said.contains("README.md"), "{said}");
}

#[test]
fn the_token_is_shown_to_the_hub_only() {
    let hub = good();
    let user = User::of(&hub);
    let run = |set: &dyn Fn(&mut Command)| {
        let mut command = user.command(&["models", "fetch", "test/tiny"]);
        set(&mut command);
        let ran = user.run(command).expect(0);
        assert!(!ran.stderr.contains("hf_secret") && !ran.stderr.contains("signature"), "{}", ran.stderr);
        hub.asked()
    };
    let asked = run(&|command| {
        command.env("HF_TOKEN", " hf_secret\n");
    });
    assert!(asked.iter().any(|asked| asked.cdn));
    for one in asked {
        assert_eq!(one.token, (!one.cdn).then(|| "Bearer hf_secret".to_owned()), "{}", one.path);
    }
    // The file that the hub's client writes, and none.
    let file = user.folder.path().join("token");
    std::fs::write(&file, "hf_secret2\n").unwrap();
    let asked = run(&|command| {
        command.env("HF_TOKEN_PATH", &file);
    });
    assert!(asked.iter().all(|asked| asked.cdn || asked.token.as_deref() == Some("Bearer hf_secret2")));
    let asked = run(&|command| {
        command.env_remove("HF_TOKEN_PATH").env("HF_HOME", user.folder.path());
    });
    assert!(asked.iter().all(|asked| asked.cdn || asked.token.is_some()));
    assert!(run(&|_| {}).iter().all(|asked| asked.token.is_none()));
    let mut command = user.command(&["models", "fetch", "test/tiny"]);
    command.env("HF_TOKEN", "a\nx-evil: 1");
    let said = user.run(command).expect(1).stderr;
    assert!(said.contains("characters that no token has") && !said.contains("evil"), "{said}");
}

#[test]
fn servers_that_do_ranges_wrongly_are_asked_for_all_of_it() {
    for kind in ["ignored", "elsewhere", "refused"] {
        let first = Mutex::new(true);
        let whole = weights();
        let hub = Hub::start(files(), move |asked, reply| {
            if !asked.is_body() {
                return reply;
            }
            if std::mem::take(&mut *first.lock().unwrap()) {
                return reply.with(Fault::Cut(300_000));
            }
            match (kind, asked.from) {
                ("ignored", _) => Reply::of(200, &[], whole.clone()),
                ("elsewhere", Some(_)) => {
                    Reply::of(206, &[("content-range", "bytes 7-970211/970212")], whole[7..].to_vec())
                }
                ("refused", Some(_)) => Reply::of(416, &[], ""),
                _ => reply,
            }
        });
        let user = User::of(&hub);
        user.fetch(&[]).expect(0);
        user.is_whole();
        let want = if kind == "ignored" { vec![0, 300_000] } else { vec![0, 300_000, 0] };
        assert_eq!(offsets(&hub.asked()), want, "{kind}");
    }
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for name in ["../../x", "/tmp/x", "a\0b", "a/../../x", "..\\x", "c:x", "", "a\u{1b}[2Jb"] {
        let mut files = files();
        files.push((name.to_owned(), b"evil".to_vec()));
        let hub = Hub::start(files, |_, reply| reply);
        let user = User::of(&hub);
        let said = user.fetch(&[]).expect(1).stderr;
        assert!(said.contains("is not a plain relative path") && !said.contains('\u{1b}'), "{name:?}: {said}");
        assert!(!user.cache().exists());
    }
    // A commit and a checksum are names in the cache too.
    for (from, to) in [(COMMIT, "../../../../x"), (COMMIT, "")] {
        let hub = Hub::start(files(), move |_, mut reply| {
            reply.body = String::from_utf8_lossy(&reply.body).replace(from, to).into_bytes();
            reply
        });
        assert!(User::of(&hub).fetch(&[]).expect(1).stderr.contains("not a list of files"));
    }
    for etag in ["\"../../x\"", "\"abc\"", ""] {
        let hub = Hub::start(files(), move |_, mut reply| {
            reply
                .headers
                .iter_mut()
                .filter(|(name, _)| name.ends_with("etag"))
                .for_each(|(_, value)| *value = etag.into());
            reply
        });
        let user = User::of(&hub);
        assert!(user.fetch(&[]).expect(1).stderr.contains("nothing can be verified"), "{etag}");
        assert!(!user.cache().exists());
    }
}

#[test]
fn busy_servers_are_waited_for() {
    let count = AtomicUsize::new(0);
    let hub = Hub::start(files(), move |_, reply| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::of(429, &[("ratelimit", "\"api\";r=0;t=3")], ""),
        1 => Reply::of(429, &[("retry-after", "1")], ""),
        2 => Reply::of(503, &[], ""),
        _ => reply,
    });
    let user = User::of(&hub);
    let started = Instant::now();
    let said = user.fetch(&[]).expect(0).stderr;
    assert!(started.elapsed() >= Duration::from_secs(4) && said.contains("waiting 3 s"), "{said}");
    user.is_whole();
    let hub = Hub::start(files(), move |_, _| Reply::of(429, &[("retry-after", "3600")], ""));
    let said = User::of(&hub).fetch(&[]).expect(1).stderr;
    assert!(said.contains("come back in 3600 s"), "{said}");
    for (status, want) in [(429, "too many requests"), (500, "status 500")] {
        let hub = Hub::start(files(), move |_, _| Reply::of(status, &[], ""));
        let said = User::of(&hub).fetch(&["--tries", "3"]).expect(1).stderr;
        assert!(said.contains(want) && said.contains("(tries: 3)"), "{said}");
        assert_eq!(hub.asked().len(), 3);
    }
}

#[test]
fn silent_servers_are_left() {
    let run = |hub: &Hub, tries: &str| {
        let user = User::of(hub);
        let mut command = user.command(&["models", "fetch", "test/tiny", "--tries", tries]);
        command.env("HF_HUB_ETAG_TIMEOUT", "1").env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
        let started = Instant::now();
        let said = user.run(command).expect(1).stderr;
        assert!(started.elapsed() < Duration::from_secs(20));
        user.has_nothing_whole();
        said
    };
    // From the first byte of the answer on: its head comes, its body does not.
    let said = run(&Hub::start(files(), |_, reply| reply.with(Fault::Silence(0))), "2");
    assert!(said.contains("the server is silent (tries: 2)"), "{said}");
    let hub = Hub::start(files(), |asked, reply| {
        if asked.is_body() {
            reply.with(Fault::Silence(700_000_usize.saturating_sub(asked.from.unwrap_or(0))))
        } else {
            reply
        }
    });
    let said = run(&hub, "2");
    assert!(said.contains("at byte 700000") && said.contains("(tries: 2)"), "{said}");
    let said = run(&Hub::start(files(), |_, reply| reply.with(Fault::Drip(Duration::from_millis(300)))), "1");
    assert!(said.contains("the server is silent (tries: 1)"), "{said}");
    // Not even a head.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let user =
        User { folder: tempfile::tempdir().unwrap(), endpoint: format!("http://{}", deaf.local_addr().unwrap()) };
    let mut command = user.command(&["models", "fetch", "test/tiny", "--tries", "1"]);
    command.env("HF_HUB_ETAG_TIMEOUT", "1");
    let said = user.run(command).expect(1).stderr;
    assert!(said.contains("the server is silent (tries: 1)"), "{said}");
}

#[test]
fn offline_means_no_connection() {
    let hub = good();
    let user = User::of(&hub);
    let said = user.fetch(&["--offline"]).expect(1).stderr;
    assert!(said.contains("--offline forbids the network"), "{said}");
    for command in [["models", "fetch", "test/tiny"], ["models", "show", "test/tiny"]] {
        let mut command = user.command(&command);
        command.env("HF_HUB_OFFLINE", "1");
        user.run(command).expect(1);
    }
    let said = user.run(user.command(&["embed", "-m", "test/tiny", &photo("china.jpg")])).expect(1).stderr;
    assert!(said.contains("`openvision models fetch test/tiny` downloads it"), "{said}");
    assert!(hub.asked().is_empty());
}

#[test]
fn two_at_once_download_once() {
    let hub = Hub::start(files(), |asked, reply| {
        if asked.is_body() {
            std::thread::sleep(Duration::from_millis(300));
        }
        reply
    });
    let user = User::of(&hub);
    let start =
        || user.command(&["models", "fetch", "test/tiny"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let both = [start().unwrap(), start().unwrap()];
    for child in both {
        Ran::from(child.wait_with_output().unwrap()).expect(0);
    }
    user.names_are_honest();
    user.is_whole();
    assert_eq!(offsets(&hub.asked()), [0]);
}

#[cfg(unix)]
#[test]
fn caches_that_cannot_be_written_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let hub = good();
    let user = User::of(&hub);
    std::fs::write(user.cache(), "a file").unwrap();
    let said = user.fetch(&[]).expect(1).stderr;
    assert!(said.contains("HF_HUB_CACHE names another one"), "{said}");
    std::fs::remove_file(user.cache()).unwrap();

    std::fs::create_dir(user.cache()).unwrap();
    std::fs::set_permissions(user.cache(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(user.cache().join("probe"), "").is_err() {
        let said = user.fetch(&[]).expect(1).stderr;
        assert!(said.contains("HF_HUB_CACHE names another one"), "{said}");
    } else {
        println!("skipped: this user may write everywhere");
        std::fs::remove_file(user.cache().join("probe")).unwrap();
    }
    std::fs::set_permissions(user.cache(), std::fs::Permissions::from_mode(0o755)).unwrap();
    user.fetch(&[]).expect(0);
}

/// A limit on the size of files fails a write as a full disk does.
#[cfg(unix)]
#[test]
fn a_full_disk_keeps_what_came() {
    let hub = good();
    let user = User::of(&hub);
    let mut limited = user.command(&[]);
    let program = limited.get_program().to_owned();
    let environment: Vec<_> = limited.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 300; exec \"$0\" models fetch test/tiny"]).arg(program);
    for (name, value) in environment {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let said = user.run(limited).expect(1).stderr;
    assert!(said.contains("no space is left on the disk"), "{said}");
    user.has_nothing_whole();
    assert_eq!(user.partial_length(), 300 * 1024);
    hub.asked();
    user.fetch(&[]).expect(0);
    assert_eq!(offsets(&hub.asked()), [300 * 1024]);
    user.is_whole();
}

#[test]
fn a_file_larger_than_the_disk_is_not_begun() {
    let hub = Hub::start(files(), |_, mut reply| {
        let sizes = reply.headers.iter_mut().filter(|(name, _)| *name == "x-linked-size");
        sizes.for_each(|(_, value)| *value = (u64::MAX / 2).to_string());
        reply
    });
    let user = User::of(&hub);
    let said = user.fetch(&[]).expect(1).stderr;
    if cfg!(unix) {
        assert!(said.contains("bytes left and"), "{said}");
        assert!(!user.cache().exists());
    }
}

#[test]
fn unsafe_addresses_and_answers_that_are_none_are_refused() {
    let with_endpoint = |endpoint: &str| {
        let user = User { folder: tempfile::tempdir().unwrap(), endpoint: endpoint.into() };
        user.fetch(&["--tries", "1"]).expect(1).stderr
    };
    let said = with_endpoint("http://hub.example");
    assert!(said.starts_with("error: HF_ENDPOINT: http://hub.example is not encrypted"), "{said}");
    assert!(with_endpoint("hub").contains("HF_ENDPOINT"));
    // A server that does not speak TLS.
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let said = with_endpoint(&format!("https://{address}"));
    assert!(said.contains("no secure connection to 127.0.0.1"), "{said}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = with_endpoint(&format!("http://{closed}"));
    assert!(said.contains("cannot reach 127.0.0.1") && said.contains("HTTPS_PROXY"), "{said}");

    let location = |location: &'static str| {
        let hub = Hub::start(files(), move |_, _| Reply::of(302, &[("location", location)], ""));
        let said = User::of(&hub).fetch(&["--tries", "1"]).expect(1).stderr;
        (said, hub.asked().len())
    };
    let (said, asked) = location("http://hub.example/x?signature=secret");
    assert!(said.contains("a redirect that is not followed") && !said.contains("secret") && asked == 1, "{said}");
    assert!(location("file:///etc/passwd").0.contains("a redirect that is not followed"));
    let (said, asked) = location("/around");
    assert!(said.contains("too many redirects") && asked < 20, "{said}");

    for (body, want) in [
        ("<!doctype html><title>Log in</title>".to_owned(), "a web page instead of a list"),
        ("{\"sha\": 1}".to_owned(), "not a list of files"),
        ("[".repeat(100_000), "not a list of files"),
        (" ".repeat(9 << 20), "an answer of more than"),
    ] {
        let hub = Hub::start(files(), move |_, _| Reply::of(200, &[], body.clone()));
        let said = User::of(&hub).fetch(&["--tries", "1"]).expect(1).stderr;
        assert!(said.contains(want), "{want}: {said}");
    }
}
