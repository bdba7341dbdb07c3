//! `openvision models fetch`.

use super::Ending;
use super::common::interrupt;
use super::report::say;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use openvision::Error;
use openvision::hub::{self, Event, HubError, Plan, Request, Settings};
use serde_json::json;
use std::io::IsTerminal;

#[derive(Args)]
#[command(
    after_help = "Prints the folder of the model. What is here already is not downloaded again; an interrupted download goes \
                  on where it stopped.\n\
                  Environment, as the hub's own client reads it: HF_ENDPOINT (a mirror), HF_HUB_CACHE, HF_HOME, HF_TOKEN, \
                  HF_TOKEN_PATH, HF_HUB_OFFLINE, HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT; also HTTPS_PROXY, NO_PROXY, \
                  SSL_CERT_FILE.\n\n\
                  Examples:\n  openvision models fetch openvision/tiny-16-160\n  \
                  openvision models fetch openai/clip-vit-base-patch32 --dry-run"
)]
pub(crate) struct Fetch {
    /// A name of `models list`, or a hub id (ORGANISATION/NAME)
    #[arg(value_name = "M")]
    model: String,
    /// A branch, a tag or a commit
    #[arg(long, value_name = "R", default_value = "main")]
    revision: String,
    /// Show what would be downloaded, and stop
    #[arg(long)]
    dry_run: bool,
    /// Tries without progress before giving up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    tries: u32,
    /// Use no network: say so instead of fetching
    #[arg(long)]
    offline: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// No plan, no progress and no notes
    #[arg(long, short)]
    quiet: bool,
}

impl Fetch {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        match self.fetch() {
            Err(Error::Hub(HubError::Interrupted)) => {
                eprintln!("{}", HubError::Interrupted);
                Ok(Ending::Interrupted)
            }
            outcome => outcome,
        }
    }

    fn fetch(&self) -> Result<Ending, Error> {
        let mut settings = Settings::from_environment()?;
        settings.tries = self.tries;
        if !self.quiet {
            settings.note = |text| eprintln!("{text}");
        }
        if self.offline {
            settings.forbid_network();
        }
        let interrupt = interrupt();
        let plan = hub::plan(Request { model: &self.model, revision: &self.revision }, &settings, &interrupt)?;
        if !self.quiet {
            show(&plan);
        }
        let downloaded = if self.dry_run { 0 } else { self.download(&plan)? };
        if self.json {
            let files =
                plan.files.iter().map(|file| json!({ "name": file.name, "bytes": file.size, "here": file.here }));
            let facts = json!({
                "hub_id": plan.hub_id, "revision": plan.revision, "commit": plan.commit, "endpoint": plan.endpoint,
                "folder": plan.folder, "files": files.collect::<Vec<_>>(), "missing_bytes": plan.missing(),
                "downloaded_bytes": downloaded,
            });
            say(facts)?;
        } else if !self.dry_run {
            say(plan.folder.display())?;
        }
        Ok(Ending::Done)
    }

    fn download(&self, plan: &Plan) -> Result<u64, Error> {
        let bar = if self.quiet || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            let style = "{msg}  {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        };
        let downloaded = plan.download(&mut |event| match event {
            Event::Started { name, size, have } => {
                bar.reset();
                bar.set_message(name.to_owned());
                bar.set_length(size);
                bar.set_position(have);
                // What was here before says nothing about the speed of this connection.
                bar.reset_eta();
            }
            Event::At(position) => bar.set_position(position),
            Event::Note(text) if !self.quiet => bar.suspend(|| eprintln!("{text}")),
            _ => {}
        });
        bar.finish_and_clear();
        Ok(downloaded?)
    }
}

/// What will be downloaded, for people.
fn show(plan: &Plan) {
    let commit: String = plan.commit.chars().take(12).collect();
    eprintln!("{} at {} ({commit}), from {}", plan.hub_id, plan.revision, plan.endpoint);
    for file in &plan.files {
        let state = match file.here {
            here if here == file.size => "here already".to_owned(),
            0 => String::new(),
            here => format!("{} here already", size(here)),
        };
        eprintln!("  {:40} {:>9}  {state}", file.name, size(file.size));
    }
    match plan.missing() {
        0 => eprintln!("all of it is here"),
        missing => eprintln!("to download: {}", size(missing)),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
