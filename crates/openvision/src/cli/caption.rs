//! `openvision caption`.

use super::Ending;
use super::common::{Common, Pictures, interrupt};
use super::report::Report;
use clap::Args;
use openvision::bench::peak_memory;
use openvision::caption::{Caption, Job, Options, Summary};
use openvision::pictures::ItemError;
use openvision::{Error, Model};
use openvision_model::caption::Strategy;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = "Examples:\n  openvision caption -m models/openvision2-large photos/\n  \
                        openvision caption -m models/openvision2-large photos/ --beam 4 --json\n  \
                        openvision caption -m models/openvision2-large train-*.tar --write-key synthetic --out captioned/")]
pub(crate) struct Captions {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    pictures: Pictures,
    /// Keep this many continuations at each step (beam search) instead of the most probable word
    #[arg(long, value_name = "N", conflicts_with = "sample")]
    beam: Option<usize>,
    /// With --beam: a caption of n tokens is worth log p / n^X
    #[arg(long, value_name = "X", default_value_t = 1.0, requires = "beam")]
    length_penalty: f64,
    /// Draw words by their probability
    #[arg(long)]
    sample: bool,
    /// With --sample: below 1 keeps closer to the most probable words
    #[arg(long, value_name = "T", default_value_t = 1.0, requires = "sample")]
    temperature: f64,
    /// With --sample: only the K most probable words (0: all)
    #[arg(long, value_name = "K", default_value_t = 0, requires = "sample")]
    top_k: usize,
    /// With --sample: only the fewest words that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, requires = "sample")]
    top_p: f64,
    /// With --sample: seed; the same seed gives the same caption for a picture of the same name
    #[arg(long, value_name = "N", default_value_t = 0, requires = "sample")]
    seed: u64,
    /// Most tokens of a caption
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    max_tokens: u64,
    /// Pictures captioned together [default: up to 16, by memory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    batch: Option<u64>,
    /// Inputs are WebDataset shards: write them again with each caption as the entry SAMPLE.K.txt
    #[arg(long, value_name = "K", requires = "out", value_parser = entry_key)]
    write_key: Option<String>,
    /// With --write-key: the folder of the new shards
    #[arg(long, short, value_name = "FOLDER", requires = "write_key")]
    out: Option<PathBuf>,
    /// With --write-key: leave out shards that are already in --out
    #[arg(long, requires = "write_key")]
    resume: bool,
}

/// A key that shards can be read back by: parts apart by dots, of what names of files are made of everywhere.
fn entry_key(key: &str) -> Result<String, String> {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if key.split('.').all(|part| !part.is_empty() && part.chars().all(plain)) && key.len() <= 64 {
        return Ok(key.to_owned());
    }
    Err("a key is letters, digits, '_' and '-', such as synthetic; at most 64 bytes".into())
}

impl Captions {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        let options = Options {
            strategy: self.strategy(),
            longest: self.max_tokens as usize,
            batch: self.batch.map(|batch| batch as usize),
            limits: self.pictures.limits(),
        };
        let mut load = self.common.options(true, false);
        self.pictures.apply(&mut load);
        match (&self.write_key, &self.out) {
            (Some(key), Some(out)) => {
                let shards = self.shards(out)?;
                self.write_shards(&shards, key, &self.common.load(&load)?, options)
            }
            _ => self.captions(&self.common.load(&load)?, options),
        }
    }

    fn strategy(&self) -> Strategy {
        match self.beam {
            Some(width) => Strategy::Beam { width, length_penalty: self.length_penalty },
            None if self.sample => Strategy::Sample {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                seed: self.seed,
            },
            None => Strategy::Greedy,
        }
    }

    fn captions(&self, model: &Model, options: Options) -> Result<Ending, Error> {
        let inputs = self.pictures.files()?;
        let interrupt = interrupt();
        let job = Job::new(model, options, &interrupt)?;
        let mut report = Report::new(&self.common, inputs.len());
        let summary = job.run(&inputs, &mut |index, caption| say(&mut report, &inputs[index].name(), caption))?;
        self.speed(&report, &job, summary);
        report.finish(&interrupt)
    }

    /// The shards to read and the files to write.
    fn shards(&self, out: &Path) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
        let mut shards: Vec<(PathBuf, PathBuf)> = Vec::new();
        for from in openvision::inputs::paths(&self.pictures.inputs, self.pictures.null)? {
            let is_shard = from.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"));
            let Some(name) = from.file_name().filter(|_| is_shard) else {
                return Err(Error::Usage(format!("{}: --write-key takes .tar shards", from.display())));
            };
            let to = out.join(name);
            if shards.iter().any(|(_, other)| *other == to) {
                return Err(Error::Usage(format!("{}: two shards of this name; run them apart", from.display())));
            }
            if to.exists() && !self.resume {
                let problem = format!("{}: there already; --resume leaves such shards out", to.display());
                return Err(Error::Usage(problem));
            }
            if !to.exists() {
                shards.push((from, to));
            }
        }
        std::fs::create_dir_all(out).map_err(|source| Error::File { path: out.into(), source })?;
        Ok(shards)
    }

    fn write_shards(
        &self,
        shards: &[(PathBuf, PathBuf)],
        key: &str,
        model: &Model,
        options: Options,
    ) -> Result<Ending, Error> {
        let interrupt = interrupt();
        let job = Job::new(model, options, &interrupt)?;
        let mut report = Report::new(&self.common, shards.len());
        for (from, to) in shards {
            let written = job.shard(from, to, key, &mut |number, caption| match caption {
                Ok(_) => Ok(()),
                Err(error) => report.failure(&format!("{} sample {number}", from.display()), error),
            });
            let summary = match written {
                Err(error @ Error::Shard(_)) => {
                    report.failed(&from.display().to_string(), "bad_shard", &error.to_string())?;
                    continue;
                }
                other => other?,
            };
            if interrupt.is_set() {
                report.remark(format!("interrupted in {}; the same command with --resume goes on", from.display()));
                break;
            }
            report.tick();
            report.remark(format!("{}: {} captions", to.display(), summary.captions));
            self.speed(&report, &job, summary);
        }
        report.finish(&interrupt)
    }

    fn speed(&self, report: &Report, job: &Job, summary: Summary) {
        if !self.common.verbose {
            return;
        }
        let (encoding, decoding) = (summary.encoding.as_secs_f64(), summary.decoding.as_secs_f64());
        let memory = peak_memory().map_or_else(|| "-".into(), |bytes| (bytes >> 20).to_string());
        report.remark(format!(
            "note: {} captions in batches of {}: {encoding:.2} s in the image tower, {decoding:.2} s in the decoder \
             for {} tokens ({:.1} tokens/s), peak memory {memory} MiB",
            summary.captions,
            job.batch(),
            summary.tokens,
            summary.tokens as f64 / decoding,
        ));
    }
}

fn say(report: &mut Report, input: &str, caption: Result<&Caption, &ItemError>) -> Result<(), Error> {
    report.tick();
    match caption {
        Ok(caption) if report.is_json() => report.object(&json!({
            "input": input,
            "text": caption.text,
            "tokens": caption.tokens,
            "ended": caption.ended,
            "log_probability": caption.log_probability,
        })),
        Ok(caption) => report.line(format!("{input}\t{}", caption.text)),
        Err(error) => report.failure(input, error),
    }
}
